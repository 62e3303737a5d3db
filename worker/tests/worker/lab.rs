//! A small real run: pictures, captions, a run document, and `clade-worker` to work on them.

use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clade_core::ids::{Incarnation, RunName};
use clade_core::job::{JobFile, Outcome};
use clade_core::order::Random;
use clade_core::spec::RunSpec;
use clade_store::{Store, find_inputs, keys};

pub(crate) const WORKER: &str = env!("CARGO_BIN_EXE_clade-worker");

pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) store: Store,
    pub(crate) run: RunName,
}

impl Lab {
    /// Writes two tars of `pairs` pairs each, and takes the run in as `clade apply` would.
    pub(crate) async fn new(pairs: u32, training: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for tar in 0..2 {
            write_tar(&data.join(format!("{tar:06}.tar")), tar * pairs..(tar + 1) * pairs);
        }
        let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets");
        let assets = assets.canonicalize().expect("run `make setup` first");
        let document = format!(
            "apiVersion: clade/v1
kind: Run
metadata: {{name: lab}}
spec:
  seed: 7
  store: file:{root}/store
  dataset: {{shards: '{root}/data/*.tar'}}
  embedding: {{encoder: {assets}/all-minilm-l6-v2}}
  clusters: {{fine: 4, experts: 2}}
  model: {{preset: tiny, vocabulary: {assets}/clip-bpe/bpe_simple_vocab_16e6.txt.gz}}
  training: {training}
  evaluation: {{}}
",
            root = folder.path().display(),
            assets = assets.display(),
        );
        let spec = RunSpec::parse(&document).unwrap();
        let run = spec.name().clone();
        let store = Store::open(&format!("file://{}/store", folder.path().display())).unwrap();
        store.put_manifest(&keys::spec(&run), &spec).await.unwrap();
        let inputs = find_inputs(&spec.spec.dataset.shards).unwrap();
        store.put_manifest(&keys::inputs(&run), &inputs).await.unwrap();
        Self { folder, store, run }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn job(&self, work: &str, incarnation: u64) -> JobFile {
        JobFile {
            store: self.store.uri().to_owned(),
            run: self.run.clone(),
            work: work.parse().unwrap(),
            incarnation: Incarnation(incarnation),
            rank: 0,
            ranks: 1,
            rendezvous: None,
            resume: None,
            fallbacks: Vec::new(),
            models: Default::default(),
            between_failures: None,
        }
    }

    /// Starts `clade-worker run` on a job file.
    pub(crate) fn start(&self, job: &JobFile) -> Child {
        let name = format!("{}-{}-{}", job.work, job.incarnation, job.rank);
        let file = self.path(&format!("{name}.yaml"));
        std::fs::write(&file, serde_json::to_string_pretty(job).unwrap()).unwrap();
        Command::new(WORKER)
            .arg("run")
            .arg(&file)
            .arg("--scratch")
            .arg(self.path(&format!("scratch-{name}")))
            .env("OMP_WAIT_POLICY", "PASSIVE")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    pub(crate) fn run(&self, job: &JobFile) -> Outcome {
        outcome(self.start(job))
    }

    /// Indexes both tars and merges the catalogue: what a seed model needs.
    pub(crate) fn make_catalogue(&self) {
        for work in ["index.0", "index.1", "catalog.0"] {
            let outcome = self.run(&self.job(work, 1));
            assert!(matches!(outcome, Outcome::Done { .. }), "{work}: {outcome:?}");
        }
    }

    /// Ranks that meet at a port of their own, all of the model `work`.
    pub(crate) fn gang(&self, job: &JobFile, ranks: u32) -> Vec<JobFile> {
        // Taken by the kernel and given back at once: free, and not handed out again soon.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let rendezvous = Some(free.local_addr().unwrap().to_string().into());
        (0..ranks)
            .map(|rank| JobFile { rank, ranks, rendezvous: rendezvous.clone(), ..job.clone() })
            .collect()
    }

    /// The lines of a model's metrics over some of its incarnations, by step.
    pub(crate) async fn metrics(&self, model: &str, gangs: &[u64]) -> Vec<serde_json::Value> {
        let model = model.parse().unwrap();
        let mut lines = Vec::new();
        for gang in gangs {
            let folder = keys::gang(&self.run, model, Incarnation(*gang));
            for entry in self.store.list(&folder).await.unwrap() {
                if entry.key.ends_with(".jsonl") {
                    let text = self.store.get(&entry.key).await.unwrap();
                    let text = std::str::from_utf8(&text).unwrap();
                    lines.extend(
                        text.lines()
                            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()),
                    );
                }
            }
        }
        lines.sort_by_key(|line| line["step"].as_u64().unwrap());
        lines
    }
}

/// How a rank started by [`Lab::start`] ended.
pub(crate) fn outcome(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!(
            "{error}: {:?} {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

fn write_tar(path: &Path, pairs: std::ops::Range<u32>) {
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    let colours = ["red", "green", "blue", "grey"];
    for pair in pairs {
        let mut random = Random::new(u64::from(pair));
        let hue = usize::try_from(random.below(4)).unwrap();
        let picture = image::RgbImage::from_fn(48, 40, |x, y| {
            let noise = u8::try_from((random.next() >> 60) + u64::from(x + y) / 4).unwrap();
            let bright = |channel: usize| if hue == channel || hue == 3 { 200 } else { 30 } + noise;
            image::Rgb([bright(0), bright(1), bright(2)])
        });
        let mut jpeg = Vec::new();
        picture.write_to(&mut Cursor::new(&mut jpeg), image::ImageFormat::Jpeg).unwrap();
        append(&mut tar, &format!("{pair:06}.jpg"), &jpeg);
        let caption = format!("a {} picture number {pair}", colours[hue]);
        append(&mut tar, &format!("{pair:06}.txt"), caption.as_bytes());
    }
    tar.finish().unwrap();
}

fn append(tar: &mut tar::Builder<std::fs::File>, name: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes).unwrap();
}
