//! The operators' side of the coordinator: apply, cancel, status, report, logs.

use clade_core::ids::{ParseIdError, RunName, WorkId};
use clade_core::job::Failure;
use clade_core::spec::RunSpec;
use clade_proto::v1::run_service_server::RunService;
use clade_proto::v1::{self, ApplyEffect};
use clade_store::{Buckets, Inputs, Store, StoreError, find_inputs_in, keys};
use tonic::{Request, Response, Status};

use crate::engine::Command;
use crate::outside;
use crate::question::{Page, Question};
use crate::role::Roles;
use crate::state::Cluster;

/// Bytes of each log shown unless asked for more or less.
const DEFAULT_TAIL: u64 = 64 * 1024;

/// Serves the operators.
pub(crate) struct Operators {
    roles: Roles,
}

impl Operators {
    pub(crate) const fn new(roles: Roles) -> Self {
        Self { roles }
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
        let find = |reply| Command::Ask(Question::Find { run: name.clone(), reply });
        let found = engine.ask(find).await?;
        let tars = match found {
            Some((known, _)) if known != spec => return Err(outside::other_document(&name)),
            // The inputs of a known run are those it was made with.
            Some(_) => 0,
            None => {
                let inputs = find_inputs_in(&spec.spec.dataset.shards, &Buckets::default())
                    .await
                    .map_err(|error| refused(&format!("spec.dataset.shards: {error}")))?;
                check_paths(&spec).map_err(|error| refused(&error))?;
                check_store(&spec).await?;
                write_run(engine.cluster(), &spec, &document, &inputs).await?;
                u32::try_from(inputs.tars.len()).map_err(|_| refused(&"too many input tars"))?
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
        let run = request.into_inner().run;
        let run = if run.is_empty() { None } else { Some(parse_name(&run)?) };
        let wanted = run.clone();
        let mut status = self.roles.ask(|reply| Question::Status { run, reply }).await?;
        if let Some(run) = wanted
            && status.runs.is_empty()
        {
            return Err(outside::unknown_run(&run));
        }
        for run in &mut status.runs {
            if run.phase == "finished" {
                (run.bundle, run.report) = places(&self.store_of(&run.run).await?).await;
            }
        }
        Ok(Response::new(status))
    }

    async fn get_report(
        &self,
        request: Request<v1::GetReportRequest>,
    ) -> Result<Response<v1::GetReportResponse>, Status> {
        self.roles.engine()?;
        let found = self.store_of(&request.into_inner().run).await?;
        let (run, store) = &found;
        let text = |key: String| async move {
            match store.get(&key).await {
                Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
                Err(StoreError::NotFound { .. }) => Err(Status::failed_precondition(format!(
                    "run `{run}` has no report yet: `clade status {run}` tells what it waits for"
                ))),
                Err(error) => Err(failed(&error)),
            }
        };
        let (bundle, report) = places(&found).await;
        Ok(Response::new(v1::GetReportResponse {
            markdown: text(keys::report_md(run)).await?,
            json: text(keys::report_json(run)).await?,
            report,
            bundle,
        }))
    }

    async fn get_logs(
        &self,
        request: Request<v1::GetLogsRequest>,
    ) -> Result<Response<v1::GetLogsResponse>, Status> {
        self.roles.engine()?;
        let v1::GetLogsRequest { run, work, tail_bytes } = request.into_inner();
        let (run, store) = self.store_of(&run).await?;
        let tail = if tail_bytes == 0 { DEFAULT_TAIL } else { tail_bytes };
        let root = keys::run(&run);
        let mut logs = Vec::new();
        for prefix in log_prefixes(&work) {
            let entries = store.list(&format!("{root}/{prefix}")).await;
            for entry in entries.map_err(|error| failed(&error))? {
                let name = entry.key.strip_prefix(&format!("{root}/")).unwrap_or(&entry.key);
                if !name.ends_with(".log") || !is_wanted(name, &work) {
                    continue;
                }
                let from = entry.bytes.saturating_sub(tail);
                let bytes = match store.get_range(&entry.key, from..entry.bytes).await {
                    Ok(bytes) => bytes,
                    Err(StoreError::NotFound { .. }) => continue,
                    Err(error) => return Err(failed(&error)),
                };
                logs.push(v1::Log {
                    name: name.to_owned(),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                    is_cut: from > 0,
                });
            }
        }
        Ok(Response::new(v1::GetLogsResponse { logs }))
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
        found.await?.map(Response::new).ok_or_else(|| outside::unknown_run(&asked))
    }
}

/// Folders of a run in which the logs of `work` may lie.
fn log_prefixes(work: &str) -> Vec<String> {
    if work.is_empty() {
        return vec!["models".to_owned(), "logs".to_owned()];
    }
    match work.parse::<WorkId>() {
        Ok(WorkId::Model(model)) => vec![format!("models/{model}")],
        Ok(WorkId::Job(job)) => vec![format!("logs/{job}")],
        Err(_) => vec!["logs".to_owned()],
    }
}

/// Whether a log belongs to `work`: a work, a stage, or everything.
fn is_wanted(name: &str, work: &str) -> bool {
    let is_stage = work.parse::<clade_core::ids::Stage>().is_ok();
    work.is_empty()
        || work.parse::<WorkId>().is_ok()
        || is_stage && name.starts_with(&format!("logs/{work}."))
}

/// Whether the paths a run names are there, so that it does not fail an hour later.
fn check_paths(spec: &RunSpec) -> Result<(), String> {
    let inner = &spec.spec;
    let one = |key: &'static str, path: &String| (key, path.clone());
    let mut paths = vec![
        one("spec.embedding.encoder", &inner.embedding.encoder),
        one("spec.model.vocabulary", &inner.model.vocabulary),
    ];
    let sets = &inner.evaluation;
    paths.extend(sets.classification.iter().map(|it| one("spec.evaluation.classification", it)));
    paths.extend(sets.retrieval.iter().map(|it| one("spec.evaluation.retrieval", it)));
    for (key, path) in paths {
        let plain = path.strip_prefix("file://").unwrap_or(&path);
        if !std::path::Path::new(plain).exists() {
            return Err(format!("{key}: `{plain}` is not there; `make setup` brings the demo's"));
        }
    }
    Ok(())
}

/// Proves that the run's store can be written to and keeps its promises, before anything rests on it.
async fn check_store(spec: &RunSpec) -> Result<(), Status> {
    let refused = |error: StoreError| {
        let otherwise = failed(&error);
        match Failure::from(error) {
            failure if failure.may_retry() => otherwise,
            failure => Status::invalid_argument(format!("spec.store: {failure}")),
        }
    };
    let store = Store::open(&spec.spec.store).map_err(refused)?;
    store.check().await.map_err(refused)
}

/// Writes what every rank of the run reads. Repeating it with the same run is harmless.
async fn write_run(
    cluster: &Cluster,
    spec: &RunSpec,
    document: &str,
    inputs: &Inputs,
) -> Result<(), Status> {
    let name = spec.name();
    let store = Store::open(&spec.spec.store).map_err(|error| failed(&error))?;
    let json = |value: serde_json::Result<Vec<u8>>| {
        value.map_err(|error| Status::internal(error.to_string()))
    };
    let files = [
        (keys::spec_source(name), document.as_bytes().to_vec()),
        (keys::spec(name), json(serde_json::to_vec_pretty(spec))?),
        (keys::inputs(name), json(serde_json::to_vec_pretty(inputs))?),
    ];
    let known = store.list(&keys::run(name)).await.map_err(|error| failed(&error))?;
    let is_ours = |key: &str| key == keys::cluster(name) || files.iter().any(|(it, _)| it == key);
    if let Some(stranger) = known.iter().find(|it| !is_ours(&it.key)) {
        return Err(Status::failed_precondition(format!(
            "{} holds artefacts of another run `{name}` (such as {}), which this coordinator does \
             not know: choose another metadata.name or store, or remove that folder",
            store.uri(),
            stranger.key
        )));
    }
    claim(&store, cluster, name).await?;
    for (key, bytes) in files {
        store.put(&key, bytes).await.map_err(|error| failed(&error))?;
    }
    Ok(())
}

/// Makes a run's folder this cluster's, or refuses it if it is another's: two clusters may share a
/// bucket, and never a run.
async fn claim(store: &Store, cluster: &Cluster, run: &RunName) -> Result<(), Status> {
    let own = serde_json::to_vec(cluster).map_err(|error| Status::internal(error.to_string()))?;
    let key = keys::cluster(run);
    match store.put_new(&key, own.clone()).await {
        Ok(_) => return Ok(()),
        Err(StoreError::AlreadyExists { .. }) => (),
        Err(error) => return Err(failed(&error)),
    }
    let found = store.get(&key).await.map_err(|error| failed(&error))?;
    if found == own {
        return Ok(());
    }
    let other = serde_json::from_slice::<Cluster>(&found).map(|it| it.name);
    let other = other.unwrap_or_else(|_| "nobody knows whose".to_owned());
    Err(Status::failed_precondition(format!(
        "{}/{} is a run of another cluster (`{other}`), or of this one before its state was removed: \
         choose another metadata.name or store, or remove that folder",
        store.uri(),
        keys::run(run)
    )))
}

/// Where the bundle and the report of a finished run lie, for people.
async fn places((run, store): &(RunName, Store)) -> (String, String) {
    let show = |key: &str| {
        store.local_path(key).map_or_else(|| key.to_owned(), |path| path.display().to_string())
    };
    let pointer = store.get(&keys::bundle_pointer(run)).await.ok();
    let bundle = pointer
        .and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok())
        .and_then(|pointer| Some(show(pointer.get("key")?.as_str()?)));
    (bundle.unwrap_or_default(), show(&keys::report_md(run)))
}
