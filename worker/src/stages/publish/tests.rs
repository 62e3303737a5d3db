//! Evaluate, report and publish on a tiny run whose models are random and whose data are real files.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clade_core::ids::{ModelId, Stage};
use clade_core::routing::{self, Router, Rows, Settings};
use clade_store::{digest, keys};

use super::*;
use crate::stages::evaluate::arrays::Arrays;
use crate::stages::evaluate::fixture::{Fixture, assets};
use crate::stages::report::document::{Report, RowKind};
use crate::stages::{evaluate, report};

/// A run that is reported and published, unless set-up has not run here.
fn published() -> Option<Fixture> {
    let assets = match assets() {
        Ok(assets) => assets,
        Err(why) => {
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let fixture = Fixture::new(&assets);
    fixture.prepare_data();
    for part in 0..4 {
        evaluate::run(&fixture.context(Stage::Evaluate, part, 1), part).unwrap();
    }
    report::run(&fixture.context(Stage::Report, 0, 1), 0).unwrap();
    run(&fixture.context(Stage::Publish, 0, 1), 0).unwrap();
    Some(fixture)
}

fn pointer(fixture: &Fixture) -> BundlePointer {
    let key = keys::bundle_pointer(fixture.spec.name());
    fixture.block_on(fixture.store.get_manifest(&key)).unwrap().0
}

/// The bundle's folder on disk.
fn bundle(fixture: &Fixture) -> PathBuf {
    fixture.store.local_path(&pointer(fixture).key).unwrap()
}

fn read_report(fixture: &Fixture) -> Report {
    let key = keys::report_json(fixture.spec.name());
    fixture.block_on(fixture.store.get_manifest(&key)).unwrap().0
}

#[test]
fn the_report_states_every_row_and_what_it_cost() {
    let Some(fixture) = published() else { return };
    let report = read_report(&fixture);
    let set = &report.classification[0];
    let rows: Vec<(&str, u64, u32)> = set
        .rows
        .iter()
        .map(|row| {
            let subject = &row.subject;
            (subject.name.as_str(), subject.pairs_trained_on, subject.encoder_passes)
        })
        .collect();
    // Seed: 3 steps of 8 pairs; every other model 2 more.
    let best = rows[4].0;
    assert!(best.starts_with("best expert (expert-"), "{best}");
    assert_eq!(
        rows,
        [
            ("seed", 24, 1),
            ("dense", 40, 1),
            ("expert-0", 40, 1),
            ("expert-1", 40, 1),
            (best, 40, 1),
            ("uniform average", 56, 2),
            ("routed, paper's rule", 56, 2),
            ("routed, code's rule", 56, 2),
        ]
    );
    assert_eq!(set.rows[4].top1, set.rows[2].top1.max(set.rows[3].top1));
    for row in &set.rows {
        assert!((0.0..=1.0).contains(&row.top1) && row.top5 == 1.0, "four classes: {row:?}");
        if let Some(routed) = &row.routed {
            assert!((routed.weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        }
    }
    let retrieval = &report.retrieval[0];
    assert_eq!((retrieval.pictures, retrieval.captions), (24, 28));
    assert_eq!(retrieval.by_cluster.pairs.iter().sum::<u64>(), 24);
    assert!(retrieval.rows.iter().any(|row| row.routed_queries.is_some()));
    assert_eq!(report.clusters.iter().map(|it| it.pairs).sum::<u64>(), 64);
    assert_eq!(report.clusters.iter().map(|it| it.fine_clusters).sum::<u32>(), 4);
    let words = report.clusters.iter().flat_map(|it| &it.words).count();
    assert!(words > 0, "clusters of colours have telling words");

    let key = keys::report_md(fixture.spec.name());
    let text = fixture.block_on(fixture.store.get(&key)).unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    for row in &set.rows {
        assert!(text.contains(&row.subject.name));
    }
    assert!(text.contains("chance 25.0 %") && text.contains("Each row states compute"), "{text}");
}

#[test]
fn every_file_of_the_bundle_is_the_one_its_manifest_names() {
    let Some(fixture) = published() else { return };
    let folder = bundle(&fixture);
    let bytes = fs::read(folder.join(MANIFEST)).unwrap();
    assert_eq!(digest(&bytes), pointer(&fixture).bundle);
    let manifest: BundleManifest = serde_json::from_slice(&bytes).unwrap();
    for file in &manifest.files {
        let found = digest_file(&folder.join(&file.name)).unwrap();
        assert_eq!(found, (file.bytes, file.sha256), "{}", file.name);
    }
    let mut on_disk = Vec::new();
    list(&folder, &folder, &mut on_disk).unwrap();
    assert_eq!(on_disk.len(), manifest.files.len() + 1, "nothing but what is named");
    let named = |name: &str| manifest.files.iter().find(|file| file.name == name).unwrap();
    for name in [
        "dense/open_clip_config.json",
        "experts/expert-1/open_clip_model.safetensors",
        "evaluation/classification-0.safetensors",
        "openclip-check.safetensors",
        "provenance.json",
        "route.py",
    ] {
        named(name);
    }
    let key = keys::report_json(fixture.spec.name());
    let report = fixture.block_on(fixture.store.get(&key)).unwrap();
    assert_eq!(named("report.json").sha256, digest(&report));
}

#[test]
fn the_bundles_router_gives_the_reports_weights() {
    let Some(fixture) = published() else { return };
    let bytes = fs::read(bundle(&fixture).join("router.safetensors")).unwrap();
    let arrays = Arrays::from_bytes(&bytes).unwrap();
    let (centres, of) =
        (arrays.matrix("fine_centres").unwrap(), arrays.indices("fine_to_expert").unwrap());
    let router = Router::new(Rows::new(&centres.values, centres.width).unwrap(), &of, 2).unwrap();
    let names = arrays.matrix("classification-0.name").unwrap();
    let prompts = arrays.matrix("classification-0.prompts").unwrap();
    let settings = Settings::default();
    for row in &read_report(&fixture).classification[0].rows {
        let weights = match row.subject.kind {
            RowKind::Paper => {
                let rows = Rows::new(&names.values, names.width).unwrap();
                routing::paper_classification(&router, rows, &settings)
            }
            RowKind::Code => {
                let rows = Rows::new(&prompts.values, prompts.width).unwrap();
                routing::code_classification(&router, rows, &settings)
            }
            RowKind::Model | RowKind::BestExpert | RowKind::Uniform => continue,
        };
        // Reading JSON may miss a number's last bit.
        let (found, told) = (weights.unwrap().weights, &row.routed.as_ref().unwrap().weights);
        let is_near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-15;
        assert!(found.len() == told.len() && found.iter().zip(told).all(is_near), "{told:?}");
    }
}

#[test]
fn a_model_of_the_bundle_loads_and_equals_its_checkpoint() {
    let Some(fixture) = published() else { return };
    let loaded = clade_model::folder::load(&bundle(&fixture).join("experts/expert-1")).unwrap();
    let context = fixture.context(Stage::Publish, 0, 9);
    let at = &fixture.models[&ModelId::Expert(1)];
    let kept = evaluate::fetch_model(&context, at).unwrap();
    let pixels = tch::Tensor::arange(3 * 32 * 32, (tch::Kind::Int64, tch::Device::Cpu));
    let pixels = pixels.remainder(251).to_kind(tch::Kind::Uint8).view([1, 3, 32, 32]);
    assert!(loaded.embed_pixels(&pixels).equal(&kept.embed_pixels(&pixels)));
}

#[test]
fn publishing_again_gives_the_same_bundle_and_mends_a_lost_pointer() {
    let Some(fixture) = published() else { return };
    let (run_name, first) = (fixture.spec.name(), pointer(&fixture));
    let gone = |key: String| fixture.block_on(fixture.store.delete(&key)).unwrap();
    gone(keys::bundle_pointer(run_name));
    run(&fixture.context(Stage::Publish, 0, 2), 0).unwrap();
    assert_eq!(pointer(&fixture), first);

    // As if the try had died before the job's manifest, half of the files sent.
    gone(keys::stage_manifest(run_name, Stage::Publish, 0));
    gone(format!("{}/{MANIFEST}", first.key));
    gone(format!("{}/router.safetensors", first.key));
    run(&fixture.context(Stage::Publish, 0, 3), 0).unwrap();
    assert_eq!(pointer(&fixture), first);
    assert!(bundle(&fixture).join("router.safetensors").is_file());
}

#[test]
fn reporting_again_gives_the_same_bytes_and_keeps_what_was_written() {
    let Some(fixture) = published() else { return };
    let name = fixture.spec.name();
    let read = |key: String| fixture.block_on(fixture.store.get(&key)).unwrap();
    let gone = |key: String| fixture.block_on(fixture.store.delete(&key)).unwrap();
    let (json, text) = (read(keys::report_json(name)), read(keys::report_md(name)));
    for keep in [false, true] {
        gone(keys::stage_manifest(name, Stage::Report, 0));
        gone(keys::report_md(name));
        if !keep {
            gone(keys::report_json(name));
        }
        report::run(&fixture.context(Stage::Report, 0, 2 + u64::from(keep)), 0).unwrap();
        assert_eq!(read(keys::report_json(name)), json);
        assert_eq!(read(keys::report_md(name)), text);
    }
}

#[test]
fn a_set_that_changed_between_two_models_is_not_reported() {
    let assets = match assets() {
        Ok(assets) => assets,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let fixture = Fixture::new(&assets);
    for part in 0..4 {
        evaluate::run(&fixture.context(Stage::Evaluate, part, 1), part).unwrap();
        fs::write(fixture.set("classes").join("classnames.txt"), "a\nb\nc\nd\n").unwrap();
    }
    let context = fixture.context(Stage::Report, 0, 1);
    let Ending::Failed(failure) = report::run(&context, 0).unwrap_err() else { panic!("stopped") };
    assert!(matches!(failure, Failure::Data { .. }), "{failure}");
    assert!(failure.to_string().contains("set classes changed"), "{failure}");
}

/// An interpreter with numpy and safetensors: `CLADE_PYTHON`, that of `make route-venv`, or the system's.
fn python() -> Option<PathBuf> {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv-route/bin/python");
    let named = std::env::var_os("CLADE_PYTHON").map(PathBuf::from);
    named.into_iter().chain([made, PathBuf::from("python3")]).find(|python| {
        let imports = Command::new(python).args(["-c", "import numpy, safetensors"]).output();
        imports.is_ok_and(|output| output.status.success())
    })
}

#[test]
fn route_py_matches_the_report() {
    let Some(python) = python() else {
        return eprintln!(
            "skipped: no python3 with numpy and safetensors; `make route-venv` makes one"
        );
    };
    let python = |arguments: &[&str]| Command::new(&python).args(arguments).output();
    let Some(fixture) = published() else { return };
    let folder = bundle(&fixture);
    let script = folder.join("route.py");
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    for row in &read_report(&fixture).classification[0].rows {
        let rule = match row.subject.kind {
            RowKind::Paper => "paper",
            RowKind::Code => "code",
            RowKind::Model | RowKind::BestExpert | RowKind::Uniform => continue,
        };
        let output =
            python(&[&text(&script), &text(&folder), "--rule", rule, "--set", "0", "--json"])
                .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let routed = row.routed.as_ref().unwrap();
        for (name, expected) in [
            ("entropy", routed.entropy),
            ("top1", row.top1),
            ("top5", row.top5),
            ("balanced", row.balanced),
        ] {
            let value = found[name].as_f64().unwrap();
            assert!((value - expected).abs() < 1e-4, "{rule} {name}: {value} is not {expected}");
        }
        for (index, expected) in routed.weights.iter().enumerate() {
            assert!((found["weights"][index].as_f64().unwrap() - expected).abs() < 1e-4);
        }
    }
}
