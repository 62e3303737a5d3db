//! The main job with input, artefacts and checkpoints in a bucket, and once more on the disk: both must
//! end with the same models, and the bucket alone must tell who saw which pair.

use std::path::Path;

use anyhow::{Context as _, ensure};
use clade_tests::bucket::Bucket;
use clade_tests::system::{clade_with, up_with};
use clade_tests::{records, toy};

const GANGS: &str = "{seed: {ranks: 2}, expert: {ranks: 1}}";
const STEPS: (u32, u32) = (12, 16);

#[test]
fn a_run_in_a_bucket_ends_with_the_models_of_one_on_the_disk() -> anyhow::Result<()> {
    if let Some(why) = toy::missing().or_else(Bucket::missing) {
        eprintln!("skipped: {why}");
        return Ok(());
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bucket");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    toy::write(&folder, 3, 60, 7)?;
    let bucket = Bucket::start()?;
    for tar in ["000000", "000001", "000002"] {
        bucket.put(&format!("train/{tar}.tar"), &folder.join(format!("train/{tar}.tar")))?;
    }
    let on_disk = toy::document("toy", &folder, STEPS, GANGS);
    let in_bucket = on_disk
        .replace(&format!("store: file:{}/store", folder.display()), "store: s3://clade/artefacts")
        .replace(
            &format!("{}/train/*.tar", folder.display()),
            "s3://clade/train/{000000..000002}.tar",
        );
    ensure!(in_bucket.matches("s3://clade").count() == 2, "{in_bucket}");

    for (document, name) in [(&on_disk, "disk"), (&in_bucket, "cloud")] {
        let done = up_with(&folder.join(name), document, &bucket.environment())?;
        let errors = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "{name}: up ended with {}: {errors}", done.status);
    }
    ensure!(bucket.list("artefacts/runs/toy/shards/")?.len() == 2, "one manifest for each expert");

    // The metrics of both, step by step.
    let copy = folder.join("copy");
    for key in bucket.list("artefacts/runs/toy/models/")? {
        if key.contains("/metrics-") || key.ends_with("manifest.json") {
            let file = copy.join(key.strip_prefix("artefacts/").context("a key of the store")?);
            std::fs::create_dir_all(file.parent().context("a folder")?)?;
            std::fs::write(file, bucket.get(&key)?)?;
        }
    }
    for model in ["seed", "dense", "expert-0", "expert-1"] {
        let disk = records::steps(&folder.join("store"), "toy", model)?;
        let cloud = records::steps(&copy, "toy", model)?;
        let steps = if model == "seed" { STEPS.0 } else { STEPS.1 };
        ensure!(disk.len() == usize::try_from(steps)?, "{model}: {} steps", disk.len());
        ensure!(disk == cloud, "{model}: the records differ\n{disk:?}\n{cloud:?}");
    }

    // Input tars lie in the bucket, so ranks read copies of them.
    let cache = folder.join("cloud/data/cache");
    let kept = std::fs::read_dir(&cache)?.filter_map(Result::ok);
    let kept = kept.filter(|it| it.path().extension().is_some_and(|it| it == "tar")).count();
    ensure!(kept > 3, "{kept} tars in {}", cache.display());
    // And the seed's last checkpoint, from which three models began, came to this machine once.
    let last = format!("artefacts/runs/toy/models/seed/gang-1/step-{}/manifest.json", STEPS.0);
    let manifest: serde_json::Value = serde_json::from_slice(&bucket.get(&last)?)?;
    let parts = manifest["parts"].as_array().context("a checkpoint has parts")?;
    ensure!(parts.len() == 2, "{manifest}");
    for part in parts {
        let digest = part["sha256"].as_str().context("a part has a digest")?;
        let copy = cache.join(format!("{digest}.tar"));
        ensure!(copy.exists(), "{} of {}", copy.display(), part["name"]);
    }
    ensure!(manifest["how"]["ranks"] == 2 && manifest["how"]["threads"] == 1, "{manifest}");

    let told = clade_with(&bucket.environment())?
        .args(["provenance", "who-saw", "00000010", "--store", "s3://clade/artefacts", "--json"])
        .output()?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: serde_json::Value = serde_json::from_slice(&told.stdout)?;
    ensure!(told["found"]["tar"] == "s3://clade/train/000000.tar", "{told}");
    let seed = &told["models"][0]["checkpoints"];
    let times = seed.as_array().and_then(|all| all.last()).map(|it| it["times"].as_u64());
    // 12 batches of 32 pairs, of 178 usable ones: everything twice, and some a third time.
    ensure!(matches!(times, Some(Some(2 | 3))), "{told}");
    Ok(())
}
