//! A tiny run by hand, for tests: random models committed as checkpoints, small evaluation sets.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use clade_core::ids::{CheckpointRef, Digest, Incarnation, ModelId, Stage, Step, WorkId};
use clade_core::job::JobFile;
use clade_core::order::Random;
use clade_core::plan::Plan;
use clade_core::spec::RunSpec;
use clade_model::clip::ClipModel;
use clade_model::config::ClipConfig;
use clade_store::{CheckpointManifest, InputTar, Inputs, Store, checkpoint, keys};
use image::{ImageFormat, RgbImage};
use tokio::runtime::Runtime;

use super::MODEL_FILE;
use crate::context::{Context, Counts, Ending, Reporter};
use crate::stages::{assign, catalog, cluster, embed, index, seal, shard};

pub(crate) const CLASSES: [&str; 4] = ["red square", "green square", "blue square", "grey square"];
const COLOURS: [[u8; 3]; 4] = [[220, 30, 30], [30, 200, 30], [30, 30, 220], [128, 128, 128]];

/// A run's folder, store and models, gone when dropped.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) spec: RunSpec,
    pub(crate) models: std::collections::BTreeMap<ModelId, CheckpointRef>,
    runtime: Runtime,
}

/// Keeps what was reported.
#[derive(Default)]
struct Reports(Mutex<Vec<(u64, u64)>>);

impl Reporter for Reports {
    fn progress(&self, done: u64, total: u64, _loss: Option<f64>) {
        self.0.lock().unwrap().push((done, total));
    }
}

/// Set-up's downloads, or why the test must be skipped.
pub(crate) fn assets() -> Result<PathBuf, String> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets");
    for needed in ["clip-bpe/bpe_simple_vocab_16e6.txt.gz", "all-minilm-l6-v2/model.safetensors"] {
        if !assets.join(needed).is_file() {
            return Err(format!("assets/{needed} is missing; run `make setup`"));
        }
    }
    Ok(assets)
}

impl Fixture {
    /// A run of two experts and a dense baseline on 24 held-out pictures of four colours.
    pub(crate) fn new(assets: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let document = format!(
            "apiVersion: clade/v1\nkind: Run\nmetadata: {{name: tiny}}\nspec:\n  seed: 7\n  \
             store: file://{at}/store\n  dataset: {{shards: {at}/train/*.tar, maxBadShare: 20%}}\n  \
             embedding: {{encoder: {assets}/all-minilm-l6-v2}}\n  \
             clusters: {{fine: 4, experts: 2}}\n  \
             model: {{preset: tiny, vocabulary: {assets}/clip-bpe/bpe_simple_vocab_16e6.txt.gz}}\n  \
             training: {{globalBatch: 8, microBatch: 8, seedSteps: 3, expertSteps: 2, \
             learningRate: {{peak: 1e-3}}, baselines: [dense]}}\n  \
             evaluation: {{classification: [{at}/eval/classes], retrieval: [{at}/eval/captions]}}\n",
            assets = assets.display(),
        );
        let spec = RunSpec::parse(&document).unwrap();
        let store = Store::open(&spec.spec.store).unwrap();
        let runtime = Runtime::new().unwrap();
        let json = serde_json::to_vec(&spec).unwrap();
        runtime.block_on(store.put_new(&keys::spec(spec.name()), json)).unwrap();
        let mut fixture =
            Self { folder, store, spec, models: std::collections::BTreeMap::new(), runtime };
        fixture.write_sets();
        for (seed, model) in (1..).zip(fixture.spec.models()) {
            let at = fixture.commit_model(model, seed);
            fixture.models.insert(model, at);
        }
        fixture
    }

    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// What a rank would be given for a job.
    pub(crate) fn context(&self, stage: Stage, part: u32, incarnation: u64) -> Context {
        let name = format!("scratch-{stage}-{part}-{incarnation}");
        let scratch = self.folder.path().join(name);
        fs::create_dir_all(&scratch).unwrap();
        let tar = self.folder.path().join("train/0.tar");
        let bytes = fs::metadata(&tar).unwrap().len();
        let inputs = Inputs { tars: vec![InputTar { uri: tar.display().to_string(), bytes }] };
        Context {
            job: JobFile {
                store: self.store.uri().to_owned(),
                run: self.spec.name().clone(),
                work: WorkId::job(stage, part),
                incarnation: Incarnation(incarnation),
                rank: 0,
                ranks: 1,
                rendezvous: None,
                resume: None,
                fallbacks: Vec::new(),
                models: self.models.clone(),
                between_failures: None,
            },
            spec: self.spec.clone(),
            plan: Plan::new(&self.spec, 1),
            inputs,
            store: self.store.clone(),
            scratch,
            device: clade_model::device::DeviceChoice::Cpu,
            slot: 0,
            cache: None,
            reporter: Arc::new(Reports::default()),
            stop: Arc::new(AtomicBool::new(false)),
            runtime: self.runtime.handle().clone(),
        }
    }

    pub(crate) fn set(&self, name: &str) -> PathBuf {
        self.folder.path().join("eval").join(name)
    }

    fn commit_model(&self, model: ModelId, seed: u64) -> CheckpointRef {
        let config = ClipConfig::preset(&self.spec.spec.model.preset).unwrap();
        let file = self.folder.path().join(MODEL_FILE);
        ClipModel::new(&config, seed).save(&file).unwrap();
        let run = self.spec.name();
        let step = Step(if model == ModelId::Seed { 3 } else { 5 });
        let key = format!("{}/{MODEL_FILE}", keys::step(run, model, Incarnation(1), step));
        self.block_on(async {
            let part = self.store.upload(&file, &key).await.unwrap();
            let manifest = CheckpointManifest {
                run: run.clone(),
                model,
                incarnation: Incarnation(1),
                step,
                cursor: step.0 * 8,
                parts: vec![part],
                parent: None,
                seed: 7,
                world_size: 1,
                how: None,
                data: Digest([1; 32]),
                spec: Digest([2; 32]),
                code_version: "test".to_owned(),
            };
            checkpoint::commit(&self.store, run, &manifest).await.unwrap()
        })
    }

    /// Takes the training pairs from index to seal, with the real sentence encoder.
    pub(crate) fn prepare_data(&self) {
        for (stage, job) in [
            (Stage::Index, index::run as fn(&Context, u32) -> Result<Counts, Ending>),
            (Stage::Catalog, catalog::run),
            (Stage::Embed, embed::run),
            (Stage::Cluster, cluster::run),
            (Stage::Assign, assign::run),
            (Stage::Shard, shard::run),
            (Stage::Seal, seal::run),
        ] {
            job(&self.context(stage, 0, 1), 0).unwrap();
        }
    }

    fn write_sets(&self) {
        let train = self.folder.path().join("train");
        fs::create_dir_all(&train).unwrap();
        let pairs = (0..64).flat_map(|index| {
            let class = CLASSES[index % 4];
            let text =
                if index % 8 < 4 { format!("a {class}") } else { format!("{class} no {index}") };
            let key = format!("train-{index:04}");
            [
                (format!("{key}.png"), picture(100 + index)),
                (format!("{key}.txt"), text.into_bytes()),
            ]
        });
        write_tar(&train.join("0.tar"), &pairs.collect::<Vec<_>>());
        let classes = self.set("classes");
        fs::create_dir_all(classes.join("test")).unwrap();
        fs::write(classes.join("classnames.txt"), CLASSES.join("\n")).unwrap();
        let templates = "a picture of a {c}.\n{c}\n";
        fs::write(classes.join("zeroshot_classification_templates.txt"), templates).unwrap();
        let mut labelled = Vec::new();
        let mut captioned = Vec::new();
        for index in 0..24 {
            let class = index % 4;
            let key = format!("{index:04}");
            let picture = picture(index);
            labelled.push((format!("{key}.png"), picture.clone()));
            labelled.push((format!("{key}.cls"), class.to_string().into_bytes()));
            captioned.push((format!("{key}.png"), picture));
            // The first caption stands under every picture of a colour.
            let text = format!("{}\nnumber {index} of the squares\n", CLASSES[class]);
            captioned.push((format!("{key}.txt"), text.into_bytes()));
        }
        let (first, second) = labelled.split_at(24);
        write_tar(&classes.join("test/0.tar"), first);
        write_tar(&classes.join("test/1.tar"), second);
        let captions = self.set("captions");
        fs::create_dir_all(captions.join("test")).unwrap();
        write_tar(&captions.join("test/0.tar"), &captioned);
    }
}

/// A noisy square of the colour of `index`'s class, as PNG.
pub(crate) fn picture(index: usize) -> Vec<u8> {
    let mut random = Random::new(index as u64);
    let colour = COLOURS[index % 4];
    let image = RgbImage::from_fn(40, 36, |_, _| {
        image::Rgb(
            colour.map(|value| value.saturating_add(u8::try_from(random.below(30)).unwrap())),
        )
    });
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) fn write_tar(path: &Path, members: &[(String, Vec<u8>)]) {
    let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    tar.finish().unwrap();
}
