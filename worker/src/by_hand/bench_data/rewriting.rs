//! The index and shard jobs of a made-up run over given tars.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use arrow_array::{StringArray, UInt32Array};
use clade_core::ids::{Incarnation, Stage, WorkId};
use clade_core::job::JobFile;
use clade_core::plan::Plan;
use clade_core::spec::RunSpec;
use clade_model::device::DeviceChoice;
use clade_pairs::{indexes, table};
use clade_store::{Buckets, DataManifest, Inputs, Store, StoreError, find_inputs_in, keys};
use serde::Serialize;
use tokio::runtime::Runtime;
use xxhash_rust::xxh3::xxh3_64;

use super::say;
use super::usage::{Meter, Usage};
use crate::context::{Context, Counts, Ending, Reporter};
use crate::stages::cluster::{ClusterManifest, Router};
use crate::stages::commit::{self, CODE_VERSION, Desk};
use crate::stages::embed::{TablesManifest, put_table};
use crate::stages::{catalog, index, seal, shard};

const RUN: &str = "bench";

#[derive(Clone, Debug, clap::Args)]
pub(super) struct RewriteArgs {
    /// Input tars: a path, a glob, or a brace pattern
    #[arg(long)]
    tars: String,
    /// Folder, or address of an object store, for what is written; it must be empty at first
    #[arg(long, value_name = "DIR")]
    into: String,
    /// Experts to sort pairs to
    #[arg(long, default_value_t = 4)]
    experts: u32,
    /// Foreign pairs in an expert's stream
    #[arg(long, default_value = "0%")]
    ooc_ratio: String,
    /// Do one of the two: `shard` goes on after `index` in the same folder
    #[arg(long, value_enum)]
    only: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    Index,
    Shard,
}

#[derive(Debug, Default, Serialize)]
struct Report {
    pairs: u64,
    input_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shard: Option<Sharded>,
}

#[derive(Debug, Serialize)]
struct Sharded {
    #[serde(flatten)]
    usage: Usage,
    output_bytes: u64,
}

/// Nobody looks on.
struct Silent;

impl Reporter for Silent {
    fn progress(&self, _done: u64, _total: u64, _loss: Option<f64>) {}
}

/// A run whose jobs are done here, one after the other.
struct Bench {
    store: Store,
    spec: RunSpec,
    inputs: Inputs,
    plan: Plan,
    scratch: PathBuf,
    runtime: Runtime,
}

pub(super) fn run(args: &RewriteArgs) -> anyhow::Result<()> {
    let bench = Bench::open(args)?;
    let input_bytes = bench.inputs.tars.iter().map(|tar| tar.bytes).sum();
    let mut report = Report { input_bytes, ..Report::default() };
    if args.only != Some(Step::Shard) {
        let meter = Meter::start();
        let counts = bench.stage(Stage::Index, index::run)?;
        report.index = Some(meter.stop());
        report.pairs = counts.iter().map(|counts| counts["pairs"]).sum();
        if report.pairs == 0 {
            bail!("--tars {}: no usable pair", args.tars);
        }
    }
    if args.only != Some(Step::Index) {
        let made = bench.stage(Stage::Catalog, catalog::run)?;
        report.pairs = made[0]["pairs"];
        bench.assign(args.experts)?;
        let meter = Meter::start();
        bench.stage(Stage::Shard, shard::run)?;
        bench.stage(Stage::Seal, seal::run)?;
        let usage = meter.stop();
        report.shard = Some(Sharded { usage, output_bytes: bench.written()? });
    }
    let _ = std::fs::remove_dir_all(&bench.scratch);
    say(&report)
}

impl Bench {
    fn open(args: &RewriteArgs) -> anyhow::Result<Self> {
        let RewriteArgs { tars, into, experts, ooc_ratio, .. } = args;
        let uri = if into.contains("://") {
            into.clone()
        } else {
            format!("file://{}", std::path::absolute(into)?.display())
        };
        let spec = RunSpec::parse(&format!(
            "apiVersion: clade/v1\n\
             kind: Run\n\
             metadata: {{name: {RUN}}}\n\
             spec:\n\
            \x20 store: {uri}\n\
            \x20 dataset: {{shards: '{tars}'}}\n\
            \x20 embedding: {{encoder: none}}\n\
            \x20 clusters: {{fine: {experts}, experts: {experts}}}\n\
            \x20 model: {{preset: tiny}}\n\
            \x20 training:\n\
            \x20   globalBatch: 1\n\
            \x20   microBatch: 1\n\
            \x20   seedSteps: 1\n\
            \x20   expertSteps: 1000\n\
            \x20   oocRatio: {ooc_ratio}\n\
            \x20   learningRate: {{peak: 1e-3}}\n\
            \x20 evaluation: {{}}\n"
        ))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(4)
            .enable_all()
            .build()?;
        let inputs = runtime
            .block_on(find_inputs_in(tars, &Buckets::default()))
            .with_context(|| format!("--tars {tars}"))?;
        let store = Store::open(&uri)?;
        let key = keys::spec(spec.name());
        match runtime.block_on(store.put_manifest(&key, &spec)) {
            Ok(_) | Err(StoreError::AlreadyExists { .. }) => (),
            Err(error) => return Err(error.into()),
        }
        let scratch = std::env::temp_dir().join(format!("clade-bench-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let plan = Plan::new(&spec, u32::try_from(inputs.tars.len())?);
        Ok(Self { store, spec, inputs, plan, scratch, runtime })
    }

    fn context(&self, work: WorkId) -> Context {
        Context {
            job: JobFile {
                store: self.store.uri().to_owned(),
                run: self.spec.name().clone(),
                work,
                incarnation: Incarnation(1),
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
            plan: self.plan.clone(),
            store: self.store.clone(),
            scratch: self.scratch.clone(),
            device: DeviceChoice::Cpu,
            slot: 0,
            cache: None,
            reporter: Arc::new(Silent),
            stop: Arc::default(),
            runtime: self.runtime.handle().clone(),
        }
    }

    /// Does every job of a stage.
    fn stage(
        &self,
        stage: Stage,
        job: fn(&Context, u32) -> Result<Counts, Ending>,
    ) -> anyhow::Result<Vec<Counts>> {
        let jobs = 0..self.plan.jobs(stage);
        jobs.map(|part| {
            job(&self.context(WorkId::job(stage, part)), part).map_err(|ending| match ending {
                Ending::Stopped => anyhow::anyhow!("{stage}.{part} was stopped"),
                Ending::Failed(failure) => anyhow::anyhow!("{stage}.{part}: {failure}"),
            })
        })
        .collect()
    }

    /// Makes up a router and the assignment of each pair: a hash of its key.
    fn assign(&self, experts: u32) -> anyhow::Result<()> {
        let context = self.context(WorkId::job(Stage::Cluster, 0));
        let desk = Desk::new(&context, Stage::Cluster, 0);
        let router = Router {
            fine_centres: vec![0.0; experts as usize],
            width: 1,
            fine_to_expert: (0..experts).collect(),
        };
        let part = desk.put("router.safetensors", router.encode())?;
        ended(desk.commit(&ClusterManifest {
            router: part,
            router_key: desk.key("router.safetensors"),
            fine: experts,
            experts,
            width: 1,
            sample: 0,
            sizes: Vec::new(),
            mean_similarity: 0.0,
            inputs: Vec::new(),
            seed: 0,
            code_version: CODE_VERSION.to_owned(),
            counts: Counts::new(),
        }))?;
        let (catalogue, _) = commit::read::<DataManifest>(&context, Stage::Catalog, 0)?;
        for part in 0..self.plan.jobs(Stage::Assign) {
            let context = self.context(WorkId::job(Stage::Assign, part));
            let desk = Desk::new(&context, Stage::Assign, part);
            let mut tables = Vec::new();
            for tar in self.plan.group(part) {
                let of = &catalogue.shards[tar as usize];
                let index = indexes::read(&self.store, &context.runtime, of)?;
                let keys = (0..index.len()).map(|row| index.key(row));
                let hash = |key: &str| xxh3_64(key.as_bytes()) % u64::from(experts);
                let fine = keys.clone().map(|key| u32::try_from(hash(key)).expect("below a u32"));
                let bytes = table::write(vec![
                    ("key", Arc::new(StringArray::from_iter_values(keys))),
                    ("fine", Arc::new(UInt32Array::from_iter_values(fine))),
                ])?;
                tables.push(put_table(&desk, tar, of.pairs, bytes)?);
            }
            ended(desk.commit(&TablesManifest {
                tables,
                inputs: Vec::new(),
                encoder: None,
                seed: 0,
                code_version: CODE_VERSION.to_owned(),
                counts: Counts::new(),
            }))?;
        }
        Ok(())
    }

    /// Bytes of all shards.
    fn written(&self) -> anyhow::Result<u64> {
        let folder = format!("{}/{}", keys::run(self.spec.name()), Stage::Shard);
        let entries = self.runtime.block_on(self.store.list(&folder))?;
        let tars = entries.iter().filter(|entry| entry.key.ends_with(".tar"));
        Ok(tars.map(|entry| entry.bytes).sum())
    }
}

fn ended(result: Result<Counts, Ending>) -> anyhow::Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(Ending::Stopped) => bail!("stopped"),
        Err(Ending::Failed(failure)) => Err(failure.into()),
    }
}
