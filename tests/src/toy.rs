//! A small dataset of drawn pictures with captions, made in the test: four topics, so that
//! clusters and experts mean something.

use std::fs::File;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use clade_core::order::Random;
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

const COLOURS: [(&str, [u8; 3]); 6] = [
    ("red", [220, 30, 30]),
    ("green", [30, 170, 60]),
    ("blue", [40, 70, 220]),
    ("yellow", [235, 210, 40]),
    ("black", [20, 20, 20]),
    ("purple", [140, 40, 170]),
];

/// A topic: what its captions say and where its pictures are painted.
struct Topic {
    name: &'static str,
    phrases: [&'static str; 4],
    paints: fn(x: f64, y: f64) -> bool,
}

const TOPICS: [Topic; 4] = [
    Topic {
        name: "balloon",
        phrases: ["balloon in the sky", "round party balloon", "floating balloon", "balloon"],
        paints: |x, y| x * x + y * y < 0.6,
    },
    Topic {
        name: "flag",
        phrases: ["striped flag of a country", "national flag", "flag on a pole", "flag"],
        paints: |_, y| (y * 3.0).rem_euclid(1.0) < 0.5,
    },
    Topic {
        name: "house",
        phrases: ["small house with a roof", "family house", "house in a village", "house"],
        paints: |x, y| y > x.abs() - 0.7 && y < 0.7 && x.abs() < 0.8,
    },
    Topic {
        name: "road sign",
        phrases: ["warning road sign", "traffic sign for drivers", "road sign", "stop here sign"],
        paints: |x, y| (x.abs() + y.abs()) < 0.8 && (x.abs() > 0.15 || y.abs() > 0.5),
    },
];

fn picture(topic: &Topic, colour: [u8; 3], random: &mut Random) -> Vec<u8> {
    let (shift_x, shift_y) = (random.unit() * 0.4 - 0.2, random.unit() * 0.4 - 0.2);
    let size = 0.8 + random.unit() * 0.4;
    let image = RgbImage::from_fn(64, 48, |x, y| {
        let (u, v) = (f64::from(x) / 24.0 - 1.33 - shift_x, f64::from(y) / 24.0 - 1.0 - shift_y);
        Rgb(if (topic.paints)(u / size, v / size) { colour } else { [240, 240, 235] })
    });
    let mut bytes = Vec::new();
    DynamicImage::ImageRgb8(image)
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .expect("a picture in memory can be encoded");
    bytes
}

struct Tar(tar::Builder<File>);

impl Tar {
    fn create(path: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path.parent().expect("a tar lies in a folder"))?;
        Ok(Self(tar::Builder::new(File::create(path)?)))
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        Ok(self.0.append_data(&mut header, name, bytes)?)
    }

    fn finish(mut self) -> anyhow::Result<()> {
        Ok(self.0.finish()?)
    }
}

/// An empty folder `name` below `root` with a toy dataset in it; see [`write`].
pub fn fresh(root: &str, name: &str, tars: u32, pairs_per_tar: u32) -> anyhow::Result<PathBuf> {
    let folder = Path::new(root).join(name);
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    write(&folder, tars, pairs_per_tar, 7)?;
    Ok(folder)
}

/// Writes `train/*.tar` and the two evaluation sets below `folder`, the same for the same seed.
///
/// Among the training pairs are a truncated picture and one without a caption.
pub fn write(folder: &Path, tars: u32, pairs_per_tar: u32, seed: u64) -> anyhow::Result<()> {
    let mut random = Random::new(seed);
    let draw = |random: &mut Random| {
        let topic = &TOPICS[usize::try_from(random.below(4)).expect("below 4")];
        let (colour, rgb) = COLOURS[usize::try_from(random.below(6)).expect("below 6")];
        let phrase = topic.phrases[usize::try_from(random.below(4)).expect("below 4")];
        (topic, format!("{colour} {phrase}"), picture(topic, rgb, random))
    };
    for tar_index in 0..tars {
        let mut tar = Tar::create(&folder.join(format!("train/{tar_index:06}.tar")))?;
        for pair in 0..pairs_per_tar {
            let key = format!("{tar_index:03}{pair:05}");
            let (topic, caption, mut bytes) = draw(&mut random);
            let mut texts = vec![caption, format!("a drawing of a {}", topic.name)];
            match (tar_index, pair) {
                (0, 3) => bytes.truncate(bytes.len() / 2),
                (0, 5) => texts = vec![String::new()],
                _ => (),
            }
            tar.add(&format!("{key}.png"), &bytes)?;
            let json = serde_json::json!({ "key": key, "texts": texts });
            tar.add(&format!("{key}.json"), json.to_string().as_bytes())?;
        }
        tar.finish()?;
    }
    let classes = folder.join("eval/classes");
    let mut set = Tar::create(&classes.join("test/0.tar"))?;
    for pair in 0..40_u32 {
        let label = usize::try_from(pair % 4).expect("below 4");
        let (_, rgb) = COLOURS[usize::try_from(random.below(6)).expect("below 6")];
        set.add(&format!("e{pair:04}.png"), &picture(&TOPICS[label], rgb, &mut random))?;
        set.add(&format!("e{pair:04}.cls"), label.to_string().as_bytes())?;
    }
    set.finish()?;
    let names: Vec<&str> = TOPICS.iter().map(|topic| topic.name).collect();
    std::fs::write(classes.join("classnames.txt"), names.join("\n"))?;
    std::fs::write(
        classes.join("zeroshot_classification_templates.txt"),
        "a drawing of a {c}\na {c}\n",
    )?;
    std::fs::write(classes.join("test/nshards.txt"), "1")?;
    let retrieval = folder.join("eval/retrieval");
    let mut set = Tar::create(&retrieval.join("test/0.tar"))?;
    for pair in 0..40_u32 {
        let (_, caption, bytes) = draw(&mut random);
        set.add(&format!("r{pair:04}.png"), &bytes)?;
        set.add(&format!("r{pair:04}.txt"), caption.as_bytes())?;
    }
    set.finish()?;
    std::fs::write(retrieval.join("test/nshards.txt"), "1")?;
    Ok(())
}

/// The run document of a toy run; `gangs` is its `gangs:` section on one line.
pub fn document(name: &str, folder: &Path, steps: (u32, u32), gangs: &str) -> String {
    let assets = concat!(env!("CARGO_MANIFEST_DIR"), "/../assets");
    let folder = folder.display();
    let (seed_steps, expert_steps) = steps;
    format!(
        "apiVersion: clade/v1
kind: Run
metadata: {{name: {name}}}
spec:
  seed: 7
  store: file:{folder}/store
  dataset: {{shards: '{folder}/train/*.tar', maxBadShare: 5%}}
  embedding: {{encoder: {assets}/all-minilm-l6-v2}}
  clusters: {{fine: 8, experts: 2, balance: 0.2, sample: 1000}}
  model: {{preset: tiny, vocabulary: {assets}/clip-bpe/bpe_simple_vocab_16e6.txt.gz}}
  training:
    globalBatch: 32
    microBatch: 16
    seedSteps: {seed_steps}
    expertSteps: {expert_steps}
    oocRatio: 5%
    learningRate: {{peak: 1e-3, warmup: 10}}
    checkpoint: {{every: 500ms, keep: 3}}
    baselines: [dense]
  gangs: {gangs}
  evaluation:
    classification: [{folder}/eval/classes]
    retrieval: [{folder}/eval/retrieval]
"
    )
}

/// Why toy runs cannot be had on this machine, if so.
pub fn missing() -> Option<String> {
    let assets = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../assets"));
    ["all-minilm-l6-v2/model.safetensors", "clip-bpe/bpe_simple_vocab_16e6.txt.gz"]
        .into_iter()
        .map(|file| assets.join(file))
        .find(|file| !file.exists())
        .map(|file| format!("{} is not there; `make setup` brings it", file.display()))
}
