//! A run on the smallest scale, for tests: a store in a folder and its input tars.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;

use clade_core::ids::{Incarnation, RunName, Stage, WorkId};
use clade_core::job::{Failure, JobFile};
use clade_core::plan::Plan;
use clade_core::spec::RunSpec;
use clade_pairs::fixture::{Member, write_tar};
use clade_store::{InputTar, Inputs, Store, keys};
use tokio::runtime::Runtime;

use crate::context::{Context, Counts, Ending, Reporter};
use crate::stages::{assign, catalog, cluster, index, seal, shard};

pub(crate) struct Run {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) spec: RunSpec,
    runtime: Runtime,
    inputs: Inputs,
}

/// Remembers the last progress told.
#[derive(Default)]
pub(crate) struct Told(Mutex<(u64, u64)>);

impl Reporter for Told {
    fn progress(&self, done: u64, total: u64, _loss: Option<f64>) {
        assert!(done <= total, "{done} of {total} done");
        *self.0.lock().unwrap() = (done, total);
    }
}

impl Run {
    /// A run over one input tar per list of members; experts 2, fine centres 4, batches of 4.
    pub(crate) fn over(tars: &[Vec<Member>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let inputs = tars
            .iter()
            .enumerate()
            .map(|(number, members)| {
                let path = folder.path().join(format!("input-{number}.tar"));
                write_tar(&path, members);
                let bytes = std::fs::metadata(&path).unwrap().len();
                InputTar { uri: path.to_str().unwrap().to_owned(), bytes }
            })
            .collect();
        let spec = RunSpec::parse(
            "apiVersion: clade/v1\n\
             kind: Run\n\
             metadata: {name: toy}\n\
             spec:\n\
            \x20 seed: 7\n\
            \x20 store: file:./store\n\
            \x20 dataset: {shards: x, maxPixels: 1M, maxBadShare: 50%}\n\
            \x20 embedding: {encoder: nowhere}\n\
            \x20 clusters: {fine: 4, experts: 2, balance: 0.5}\n\
            \x20 model: {preset: tiny}\n\
            \x20 training:\n\
            \x20   globalBatch: 4\n\
            \x20   microBatch: 2\n\
            \x20   seedSteps: 4\n\
            \x20   expertSteps: 4\n\
            \x20   learningRate: {peak: 1e-3}\n\
            \x20 evaluation: {}\n",
        )
        .unwrap();
        let store = Store::open(&format!("file://{}/store", folder.path().display())).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let run = Self { folder, store, spec, runtime, inputs: Inputs { tars: inputs } };
        run.wait(run.store.put_manifest(&keys::spec(&run.name()), &run.spec)).unwrap();
        run
    }

    pub(crate) fn name(&self) -> RunName {
        self.spec.name().clone()
    }

    pub(crate) fn wait<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    pub(crate) fn input(&self, number: usize) -> PathBuf {
        self.inputs.tars[number].uri.clone().into()
    }

    /// What try `incarnation` of `work` is given.
    pub(crate) fn context(&self, work: WorkId, incarnation: u64) -> Context {
        let tars = u32::try_from(self.inputs.tars.len()).unwrap();
        let scratch = self.folder.path().join("scratch");
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir_all(&scratch).unwrap();
        Context {
            job: JobFile {
                store: self.store.uri().to_owned(),
                run: self.name(),
                work,
                incarnation: Incarnation(incarnation),
                rank: 0,
                ranks: 1,
                rendezvous: None,
                resume: None,
                fallbacks: Vec::new(),
                models: std::collections::BTreeMap::new(),
                between_failures: None,
            },
            spec: self.spec.clone(),
            inputs: self.inputs.clone(),
            plan: Plan::new(&self.spec, tars),
            store: self.store.clone(),
            scratch,
            device: clade_model::device::DeviceChoice::Cpu,
            slot: 0,
            cache: None,
            reporter: Arc::new(Told::default()),
            stop: Arc::default(),
            runtime: self.runtime.handle().clone(),
        }
    }

    /// Does one job as its first try. Captions are embedded by [`toy_embedding`].
    pub(crate) fn job(&self, stage: Stage, part: u32) -> Result<Counts, Ending> {
        self.job_as(stage, part, 1)
    }

    pub(crate) fn job_as(&self, stage: Stage, part: u32, try_: u64) -> Result<Counts, Ending> {
        let context = self.context(WorkId::job(stage, part), try_);
        match stage {
            Stage::Index => index::run(&context, part),
            Stage::Catalog => catalog::run(&context, part),
            Stage::Embed => toy_embed(&context, part),
            Stage::Cluster => cluster::run(&context, part),
            Stage::Assign => assign::run(&context, part),
            Stage::Shard => shard::run_with_target(&context, part, 3_000),
            Stage::Seal => seal::run(&context, part),
            Stage::Evaluate | Stage::Report | Stage::Publish => panic!("not a data stage"),
        }
    }

    /// Does every job of the stages up to `last`.
    pub(crate) fn up_to(&self, last: Stage) -> Counts {
        let plan = self.context(WorkId::job(Stage::Index, 0), 1).plan;
        let mut counts = Counts::new();
        for stage in Stage::ALL.into_iter().filter(|stage| *stage <= last) {
            for part in 0..plan.jobs(stage) {
                counts = self.job(stage, part).unwrap_or_else(|ending| {
                    panic!("{stage}.{part}: {}", message(ending));
                });
            }
        }
        counts
    }
}

/// What a failed job said.
pub(crate) fn message(ending: Ending) -> String {
    match ending {
        Ending::Stopped => "stopped".to_owned(),
        Ending::Failed(failure) => failure.to_string(),
    }
}

pub(crate) fn failure(result: Result<Counts, Ending>) -> Failure {
    match result {
        Err(Ending::Failed(failure)) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

const WIDTH: usize = 4;

fn toy_embed(context: &Context, part: u32) -> Result<Counts, Ending> {
    let desk = crate::stages::commit::Desk::new(context, Stage::Embed, part);
    crate::stages::embed::run_with(&desk, None, WIDTH, |texts| {
        Ok(texts.iter().flat_map(|text| toy_embedding(text)).collect())
    })
}

/// A unit row that depends on the first letter most.
fn toy_embedding(text: &str) -> [f32; WIDTH] {
    let first = usize::from(text.as_bytes()[0]) % WIDTH;
    let spread = (clade_store::digest(text.as_bytes()).0[0] % 16) as f32 / 100.0;
    let mut row = [spread; WIDTH];
    row[first] = 1.0;
    let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
    row.map(|value| value / norm)
}
