//! The operators' side of the coordinator: apply, cancel, status, report, logs.

mod intake;
mod logs;
mod places;

use clade_core::ids::{ParseIdError, RunName};
use clade_core::spec::RunSpec;
use clade_proto::v1::run_service_server::RunService;
use clade_proto::v1::{self, ApplyEffect};
use clade_store::{Buckets, Store, StoreError, find_inputs_in, keys};
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Response, Status};

use self::intake::{check_paths, check_store, write_run};
use self::places::Places;
use crate::engine::{self, Command};
use crate::outside;
use crate::question::{Page, Question, StatusTold};
use crate::role::Roles;
use crate::standby::LEADER;

/// Serves the operators.
pub(crate) struct Operators {
    roles: Roles,
    places: Places,
}

impl Operators {
    pub(crate) fn new(roles: Roles) -> Self {
        Self { roles, places: Places::default() }
    }

    /// An answer from the state; one of a standby's names the leader, who knows more.
    fn marked<T>(&self, answer: T) -> Response<T> {
        let mut answer = Response::new(answer);
        let leader = self.roles.leader_elsewhere().map(AsciiMetadataValue::try_from);
        if let Some(Ok(leader)) = leader {
            answer.metadata_mut().insert(LEADER, leader);
        }
        answer
    }

    /// The store of a run that must exist.
    async fn store_of(&self, run: &str) -> Result<(RunName, Store), Status> {
        let run: RunName = parse_name(run)?;
        let found = self.roles.ask(|reply| Question::Find { run: run.clone(), reply }).await?;
        let (spec, _) = found.ok_or_else(|| outside::unknown_run(&run))?;
        let store = Store::open(&spec.spec.store).map_err(|error| failed(&error))?;
        Ok((run, store))
    }
}

fn parse_name(run: &str) -> Result<RunName, Status> {
    run.parse().map_err(|error: ParseIdError| Status::invalid_argument(error.to_string()))
}

fn failed(error: &StoreError) -> Status {
    Status::internal(error.to_string())
}

#[tonic::async_trait]
impl RunService for Operators {
    async fn apply_run(
        &self,
        request: Request<v1::ApplyRunRequest>,
    ) -> Result<Response<v1::ApplyRunResponse>, Status> {
        let engine = self.roles.engine()?;
        let v1::ApplyRunRequest { document, base_dir, queue } = request.into_inner();
        let refused = |error: &dyn std::fmt::Display| Status::invalid_argument(error.to_string());
        let mut spec = RunSpec::parse(&document).map_err(|error| refused(&error))?;
        spec.resolve(&base_dir);
        spec.check_length().map_err(|error| refused(&error))?;
        let name = spec.name().clone();
        let propose = |reply| Command::Propose { spec: Box::new(spec.clone()), queue, reply };
        let tars = match engine.ask(propose).await?? {
            // The inputs of a known run are those it was made with.
            ApplyEffect::Resumed | ApplyEffect::Unchanged | ApplyEffect::Unspecified => 0,
            ApplyEffect::Created => {
                let inputs = find_inputs_in(&spec.spec.dataset.shards, &Buckets::default())
                    .await
                    .map_err(|error| refused(&format!("spec.dataset.shards: {error}")))?;
                let tars = u32::try_from(inputs.tars.len());
                let tars = tars.map_err(|_| refused(&"too many input tars"))?;
                check_paths(&spec).map_err(|error| refused(&error))?;
                check_store(&spec).await?;
                write_run(engine.cluster(), &spec, &document, &inputs).await?;
                tars
            }
        };
        let spec = Box::new(spec);
        let effect = engine.ask(|reply| Command::Apply { spec, tars, queue, reply }).await??;
        let effect = ApplyEffect::into(effect);
        Ok(Response::new(v1::ApplyRunResponse { run: name.to_string(), effect }))
    }

    async fn cancel_run(
        &self,
        request: Request<v1::CancelRunRequest>,
    ) -> Result<Response<v1::CancelRunResponse>, Status> {
        let engine = self.roles.engine()?;
        let run = parse_name(&request.into_inner().run)?;
        engine.ask(|reply| Command::Cancel { run, reply }).await??;
        Ok(Response::new(v1::CancelRunResponse {}))
    }

    async fn get_status(
        &self,
        request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let v1::GetStatusRequest { run, page_size, page_token } = request.into_inner();
        let run = if run.is_empty() { None } else { Some(parse_name(&run)?) };
        let after = if page_token.is_empty() { None } else { Some(parse_name(&page_token)?) };
        let page = Page { size: page_size, after };
        let asked = run.clone();
        let told = self.roles.ask(|reply| Question::Status { run: asked, page, reply }).await?;
        let StatusTold { mut status, stores } = told;
        if let Some(run) = run
            && status.runs.is_empty()
        {
            return Err(outside::unknown_run(&run));
        }
        let mut places = self.places.of(stores).await;
        for run in &mut status.runs {
            (run.bundle, run.report) = places.remove(&run.run).unwrap_or_default();
        }
        status.leader = self.roles.leader_elsewhere().unwrap_or_default();
        Ok(self.marked(status))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        let found = self.store_of(&request.into_inner().run).await?;
        let (run, store) = &found;
        let text = |key: String| async move {
            match store.get(&key).await {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(StoreError::NotFound { .. }) => {
                    Err(self.roles.or_leader(Status::failed_precondition(format!(
                        "run `{run}` has no report yet: `clade status {run}` tells what it waits for"
                    ))))
                }
                Err(error) => Err(self.roles.or_leader(failed(&error))),
            }
        };
        let (bundle, report) = places::look(run, store).await;
        Ok(Response::new(v1::GetReportResponse {
            markdown: text(keys::report_md(run)).await?,
            json: text(keys::report_json(run)).await?,
            report,
            bundle: bundle.unwrap_or_default(),
        }))
    }

    async fn get_logs(
        &self,
        request: Request<v1::GetLogsRequest>,
    ) -> Result<Response<v1::GetLogsResponse>, Status> {
        let v1::GetLogsRequest { run, work, tail_bytes } = request.into_inner();
        let (run, store) = self.store_of(&run).await?;
        match logs::tails(&store, &run, &work, tail_bytes).await {
            Ok(found) if found.logs.is_empty() => match self.roles.leader_elsewhere() {
                None => Ok(Response::new(found)),
                Some(_) => Err(self.roles.engine().err().unwrap_or_else(engine::no_longer)),
            },
            Ok(found) => Ok(Response::new(found)),
            Err(error) => Err(self.roles.or_leader(failed(&error))),
        }
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let v1::ListJobsRequest { run, stage, phase, page_size, page_token } = request.into_inner();
        let run = parse_name(&run)?;
        let invalid = |error: ParseIdError| Status::invalid_argument(error.to_string());
        let stage = if stage.is_empty() { None } else { Some(stage.parse().map_err(invalid)?) };
        let after =
            if page_token.is_empty() { None } else { Some(page_token.parse().map_err(invalid)?) };
        let page = Page { size: page_size, after };
        let asked = run.clone();
        let found = self.roles.ask(|reply| Question::Jobs { run, stage, phase, page, reply });
        found.await?.map(|jobs| self.marked(jobs)).ok_or_else(|| outside::unknown_run(&asked))
    }
}
