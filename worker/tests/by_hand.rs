//! The commands that need no coordinator, as a person runs them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{Cursor, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_clade-worker");

fn run(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_remove("RUST_LOG").output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs what must succeed.
fn done(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn lines(stdout: &str) -> Vec<Value> {
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A folder with a tiny model and a tar of sixteen pairs, one of them broken inside.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        let model = desk.path("model");
        done(&["new-model", "--preset", "tiny", "--seed", "3", "--out", &model]);
        let mut tar = tar::Builder::new(File::create(desk.path("pairs.tar")).unwrap());
        for pair in 0..16_u8 {
            let mut picture = picture(pair);
            if pair == 5 {
                // Sound to the eye of an index, and not to a decoder: bytes within are gone.
                let half = picture.len() / 2;
                picture[half..half + 40].fill(0);
            }
            for (name, content) in [
                (format!("{pair:03}.png"), picture),
                (format!("{pair:03}.txt"), format!("a picture of number {pair}").into_bytes()),
            ] {
                let mut header = tar::Header::new_gnu();
                header.set_size(content.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, name, content.as_slice()).unwrap();
            }
        }
        tar.finish().unwrap();
        desk
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// `train` with what every test says.
    fn train<'a>(&self, vocabulary: &'a str, more: &[&'a str]) -> Vec<String> {
        let (model, tar) = (self.path("model"), self.path("pairs.tar"));
        ["train", "--model", &model, "--tars", &tar, "--vocabulary", vocabulary, "--threads", "1"]
            .iter()
            .chain(more)
            .map(|&it| it.to_owned())
            .collect()
    }
}

fn picture(number: u8) -> Vec<u8> {
    let noise =
        |x: u32, y: u32| u8::try_from((x * 31 + y * 17 + u32::from(number) * 53) % 251).unwrap();
    let picture = image::RgbImage::from_fn(48, 36, |x, y| {
        image::Rgb([noise(x, y), noise(y, x), number * 15])
    });
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// CLIP's vocabulary that set-up lays out, or none on a machine without it.
fn vocabulary() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz");
    if !path.exists() {
        eprintln!("skipped: {} is not there, `make setup` fetches it", path.display());
        return None;
    }
    Some(path.display().to_string())
}

fn strings(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn devices_are_listed_with_the_reason_why_there_is_no_gpu() {
    let found = lines(&done(&["devices"]));
    assert_eq!(found[0]["device"], "cpu");
    if found.len() == 1 {
        let why = found[0]["whyNoGpu"].as_str().unwrap();
        assert!(why.contains("libtorch_cuda.so") || why.contains("nvidia-smi"), "{why}");
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("m").display().to_string();
        done(&["new-model", "--preset", "tiny", "--out", &model]);
        let out = folder.path().join("x").display().to_string();
        let refused = run(&[
            "encode",
            "--model",
            &model,
            "--captions",
            &model,
            "--out",
            &out,
            "--device",
            "cuda:0",
        ]);
        assert_eq!(refused.status.code(), Some(1));
        assert!(said(&refused).contains("--device"), "{}", said(&refused));
    }
}

#[test]
fn pictures_and_captions_are_encoded_in_order_and_a_broken_picture_is_left_out() {
    let Some(vocabulary) = vocabulary() else { return };
    let desk = Desk::new();
    let pictures = PathBuf::from(desk.path("pictures"));
    fs::create_dir_all(pictures.join("more")).unwrap();
    fs::write(pictures.join("b.png"), picture(2)).unwrap();
    fs::write(pictures.join("a.png"), picture(1)).unwrap();
    fs::write(pictures.join("more/c.png"), picture(3)).unwrap();
    fs::write(pictures.join("broken.png"), b"no picture").unwrap();
    std::os::unix::fs::symlink("/nowhere", pictures.join("dangling.png")).unwrap();
    fs::write(desk.path("captions.txt"), "a lemon\n\nflag of France\n").unwrap();
    let (model, captions, out) = (desk.path("model"), desk.path("captions.txt"), desk.path("e"));
    let encode = [
        "encode",
        "--model",
        &model,
        "--pictures",
        &desk.path("pictures"),
        "--captions",
        &captions,
        "--vocabulary",
        &vocabulary,
        "--out",
        &out,
        "--unit",
    ];
    let output = run(&encode);
    assert!(output.status.success(), "{}", said(&output));
    for name in ["broken.png", "dangling.png"] {
        assert!(said(&output).contains(name), "{}", said(&output));
    }
    let bytes = fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let names = header.metadata().as_ref().unwrap()["pictures"].clone();
    assert_eq!(names, r#"["a.png","b.png","more/c.png"]"#);
    for (name, dtype, shape) in [
        ("pixels", Dtype::U8, vec![3, 3, 32, 32]),
        ("image_features", Dtype::F32, vec![3, 64]),
        ("token_ids", Dtype::I64, vec![3, 16]),
        ("text_features", Dtype::F32, vec![3, 64]),
    ] {
        let tensor = file.tensor(name).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (dtype, shape.as_slice()), "{name}");
    }
    let features = file.tensor("image_features").unwrap();
    let squares = features.data()[..256]
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()).powi(2));
    assert!((squares.sum::<f32>() - 1.0).abs() < 1e-5);

    let nowhere = run(&["encode", "--model", &model, "--captions", &captions, "--out", &model]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(said(&nowhere).contains("it is a folder"), "{}", said(&nowhere));
}

#[test]
fn training_prints_a_line_per_step_and_writes_a_model_that_trains_on() {
    let Some(vocabulary) = vocabulary() else { return };
    let desk = Desk::new();
    let out = desk.path("trained");
    let steps = ["--steps", "6", "--batch", "8", "--learning-rate", "0.002", "--out", &out];
    let found = lines(&done(&strings(&desk.train(&vocabulary, &steps))));
    assert_eq!(found.len(), 6);
    for (line, step) in found.iter().zip(1_u64..) {
        assert_eq!((line["step"].as_u64(), line["lr"].as_f64()), (Some(step), Some(0.002)));
        // Of each second batch one picture does not decode: tar order, round and round.
        assert_eq!(line["masked"].as_u64(), Some(step % 2), "{line}");
        for number in ["loss", "logitScale", "samplesPerSecond", "gradNorm"] {
            assert!(line[number].as_f64().is_some_and(|it| it > 0.0), "{line}");
        }
    }
    assert!(found[4]["loss"].as_f64() < found[0]["loss"].as_f64(), "the same batch: {found:?}");

    // The same in micro-batches and with recomputation, from the same model.
    let other = [
        "--steps",
        "6",
        "--batch",
        "8",
        "--learning-rate",
        "0.002",
        "--micro-batch",
        "3",
        "--recompute",
    ];
    let other = lines(&done(&strings(&desk.train(&vocabulary, &other))));
    for (one, other) in found.iter().zip(&other) {
        let (one, other) = (one["loss"].as_f64().unwrap(), other["loss"].as_f64().unwrap());
        assert!((one - other).abs() < 1e-3 * one, "{one} {other}");
    }

    let again = run(&strings(&desk.train(&vocabulary, &steps)));
    assert_eq!(again.status.code(), Some(1));
    assert!(said(&again).contains("holds a model already"), "{}", said(&again));
    done(
        &[
            "encode",
            "--model",
            &out,
            "--captions",
            &desk.path("captions.txt"),
            "--out",
            &desk.path("e"),
            "--vocabulary",
            &vocabulary,
        ]
        .map(|it| {
            if it.ends_with("captions.txt") {
                fs::write(it, "a picture of number 3\n").unwrap();
            }
            it
        }),
    );
}

#[test]
fn what_would_spoil_a_run_is_found_before_it_begins() {
    let Some(vocabulary) = vocabulary() else { return };
    let desk = Desk::new();
    fs::write(desk.path("file"), "no folder").unwrap();
    let below_a_file = desk.path("file/out");
    for (more, words) in [
        (["--learning-rate", "nan"], "--learning-rate NaN is no use"),
        (["--beta2", "1"], "--beta2 1 is no use"),
        (["--out", &below_a_file], "cannot write to"),
        (["--tars", "/nowhere/*.tar"], "cannot read /nowhere"),
    ] {
        let all = [["--steps", "1"], ["--batch", "4"], more].concat();
        let output = run(&strings(&desk.train(&vocabulary, &all)));
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(said(&output).contains(words), "{more:?}: {}", said(&output));
        assert!(output.stdout.is_empty(), "no step was made");
    }
}

#[test]
fn a_tar_that_is_cut_short_ends_training_with_its_name_and_what_was_trained_is_kept() {
    let Some(vocabulary) = vocabulary() else { return };
    let desk = Desk::new();
    let whole = fs::read(desk.path("pairs.tar")).unwrap();
    // Four whole pairs and a part of the fifth.
    fs::write(desk.path("short.tar"), &whole[..whole.len() / 4 + 700]).unwrap();
    let (short, out) = (desk.path("short.tar"), desk.path("kept"));
    let more = ["--tars", &short, "--steps", "9", "--batch", "8", "--out", &out];
    let output = run(&strings(&desk.train(&vocabulary, &more)));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("short.tar is no whole tar"), "{}", said(&output));
    let steps = lines(&String::from_utf8_lossy(&output.stdout));
    assert_eq!(steps.len(), 2, "{}", said(&output));
    assert!(Path::new(&out).join("open_clip_model.safetensors").exists());
}

#[test]
fn whoever_reads_the_lines_may_leave_and_the_model_is_kept() {
    let Some(vocabulary) = vocabulary() else { return };
    let desk = Desk::new();
    let out = desk.path("kept");
    let more = ["--steps", "500", "--batch", "8", "--out", &out];
    let mut child = Command::new(PROGRAM)
        .args(desk.train(&vocabulary, &more))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("nobody reads stdout"), "{}", said(&output));
    assert!(Path::new(&out).join("open_clip_model.safetensors").exists());
}

#[test]
fn three_losses_in_a_row_that_are_not_finite_stop_training_list_the_keys_and_write_no_model() {
    let Some(vocabulary) = vocabulary() else { return };
    let desk = Desk::new();
    // Finite, but its products are not.
    let weights = PathBuf::from(desk.path("model")).join("open_clip_model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let huge: Vec<u8> = (0..64 * 64).flat_map(|_| 3e38_f32.to_le_bytes()).collect();
    let views = file.tensors().into_iter().map(|(name, tensor)| {
        let data = if name == "visual.proj" { &huge } else { tensor.data() };
        let view = TensorView::new(tensor.dtype(), tensor.shape().to_vec(), data).unwrap();
        (name, view)
    });
    let broken = safetensors::serialize(views.collect::<Vec<_>>(), None::<HashMap<_, _>>).unwrap();
    fs::write(&weights, broken).unwrap();
    let out = desk.path("out");
    let more = ["--steps", "9", "--batch", "8", "--out", &out];
    let output = run(&strings(&desk.train(&vocabulary, &more)));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty(), "no step was applied");
    assert!(said(&output).contains("3 batches in a row were refused"), "{}", said(&output));
    let keys = fs::read(Path::new(&out).join("refused-after-0.json")).unwrap();
    let keys: Vec<String> = serde_json::from_slice(&keys).unwrap();
    assert_eq!(keys.len(), 8);
    assert_eq!(keys[0], "000");
    assert!(!Path::new(&out).join("open_clip_model.safetensors").exists());
}

#[test]
fn a_step_that_does_not_fit_is_told_with_what_would() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    done(&["new-model", "--preset", "small", "--out", &path("model")]);
    let pairs = 4096;
    let pixels = vec![7_u8; pairs * 3 * 40 * 40];
    let mut row = [0_i64; 24];
    row[..3].copy_from_slice(&[49_406, 320, 49_407]);
    row[23] = 0;
    let tokens: Vec<u8> = (0..pairs).flat_map(|_| row).flat_map(i64::to_le_bytes).collect();
    let views = [
        ("pixels", TensorView::new(Dtype::U8, vec![1, pairs, 3, 40, 40], &pixels).unwrap()),
        ("tokens", TensorView::new(Dtype::I64, vec![1, pairs, 24], &tokens).unwrap()),
    ];
    safetensors::serialize_to_file(views, None, Path::new(&path("batches"))).unwrap();
    let bench = format!(
        "ulimit -v 4000000; exec {PROGRAM} bench --model {} --batches {} --device cpu --threads 1",
        path("model"),
        path("batches")
    );
    let mut child = Command::new("sh")
        .args(["-c", &bench])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"1\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let words = said(&output);
    assert!(!words.contains("panicked"), "{words}");
    let last = words.lines().last().unwrap();
    for part in [
        "out of memory on cpu: a batch of 4096 pairs, 4096 at a time, in f32",
        "GiB",
        "would have fitted",
    ] {
        assert!(last.contains(part), "{words}");
    }
}

/// Starts so many ranks of a gang that checks itself on the CPU.
fn checking_gang(ranks: u32, options: &[&str]) -> Vec<Output> {
    // A free port; somebody else may take it, but hardly in the same moment.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let meet = format!("{free}/check");
    let rank = |rank: u32| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clade-worker"));
        command.args(["check-gang", "--rank", &rank.to_string(), "--ranks", &ranks.to_string()]);
        command.args(["--meet", &meet, "--device", "cpu"]).args(options);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let ranks: Vec<_> = (0..ranks).map(rank).collect();
    ranks.into_iter().map(|rank| rank.wait_with_output().unwrap()).collect()
}

fn told(ended: &Output) -> Vec<Value> {
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn two_ranks_by_hand_check_what_they_exchange_and_how_fast() {
    for ended in checking_gang(2, &["--mebibytes", "1", "--rounds", "2"]) {
        let lines = told(&ended);
        let exchange = lines[0]["exchange"].as_str().unwrap();
        assert!(exchange.contains("computes on the CPU"), "{exchange}");
        assert_eq!(lines[1]["onDevice"], false);
        assert!(lines[1]["gigabytesPerSecond"].as_f64().unwrap() > 0.0, "{lines:?}");
    }
}

#[test]
fn ranks_by_hand_notice_one_that_dies_and_one_that_stands_still() {
    for (fault, due) in [("dies", 2.0), ("stalls", 8.0)] {
        let ends = checking_gang(3, &["--fault", fault]);
        for ended in &ends[..2] {
            let lines = told(ended);
            assert_eq!(lines[1]["fault"], fault);
            assert!(lines[1]["seconds"].as_f64().unwrap() < due, "{lines:?}");
        }
        let last = &ends[2].status;
        assert_eq!(last.signal(), (fault == "dies").then_some(9), "{last}");
    }
}
