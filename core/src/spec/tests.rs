use expect_test::{Expect, expect};

use super::*;

const DEMO: &str = include_str!("../../../deploy/demo/run.yaml");

fn refused(from: &str, to: &str, expected: &Expect) {
    assert!(DEMO.contains(from), "the demo's document no longer holds `{from}`");
    let error = RunSpec::parse(&DEMO.replacen(from, to, 1)).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn the_demo_document_is_valid_and_survives_json() {
    let spec = RunSpec::parse(DEMO).unwrap();
    assert_eq!(spec.spec.dataset.max_pixels, Count(64_000_000));
    assert_eq!(spec.spec.dataset.max_bad_share, Share(0.05));
    assert_eq!(spec.spec.training.checkpoint.every, Span::from_millis(30_000));
    let json = serde_json::to_string(&spec).unwrap();
    assert_eq!(serde_json::from_str::<RunSpec>(&json).unwrap(), spec);
}

#[test]
fn an_unknown_key_is_refused_with_line_and_nearest_key() {
    refused(
        "globalBatch",
        "globalBach",
        &expect!["line 17: unknown key `globalBach`; did you mean `globalBatch`?"],
    );
    refused("  seed: 7", "  sede: 7", &expect!["line 7: unknown key `sede`; did you mean `seed`?"]);
    refused(
        "weightDecay: 0.1",
        "zzz: 1",
        &expect![
            "line 23: unknown key `zzz`; known here: globalBatch, microBatch, recompute, seedSteps, expertSteps, oocRatio, learningRate, weightDecay, checkpoint, baselines"
        ],
    );
}

#[test]
fn an_unknown_key_of_proportional_steps_is_refused_like_any_other() {
    refused(
        "expertSteps: 144",
        "expertSteps: {proportionl: 5}",
        &expect!["line 20: unknown key `proportionl`; did you mean `proportional`?"],
    );
    refused(
        "expertSteps: 144",
        "expertSteps: {proportional: 5, foo: 2}",
        &expect!["line 20: unknown key `foo`; known here: proportional"],
    );
}

#[test]
fn a_wrong_type_is_refused_with_its_line() {
    refused(
        "globalBatch: 128",
        "globalBatch: many",
        &expect!["line 17: key `globalBatch`: invalid u32"],
    );
    refused(
        "every: 30s",
        "every: soon",
        &expect![[
            r#"line 24: key `every`: invalid value: string "soon", expected a length of time such as 250ms, 30s or 5m"#
        ]],
    );
    refused(
        "maxBadShare: 5%",
        "maxBadShare: 500%",
        &expect![[
            r#"line 12: key `maxBadShare`: invalid value: string "500%", expected a share from 0% to 100%"#
        ]],
    );
    refused(
        "name: clipart",
        "name: Clip/Art",
        &expect![
            "line 5: key `name`: expected a run name of at most 63 lower-case letters, digits and `-`, found `Clip/Art`"
        ],
    );
    refused("metadata: {name: clipart}\n", "", &expect!["line 5: missing field `metadata`"]);
}

#[test]
fn a_rule_that_is_broken_is_told_with_its_key() {
    refused(
        "microBatch: 64",
        "microBatch: 60",
        &expect!["spec.training.microBatch: 60 does not divide globalBatch 128"],
    );
    refused(
        "seed: {ranks: 2}",
        "seed: {ranks: 3}",
        &expect![
            "spec.gangs.seed.ranks: 3 ranks cannot share the 2 micro-batches of globalBatch / microBatch evenly; 1, 2 can"
        ],
    );
    refused(
        "file:./clade-data",
        "ftp://host/x",
        &expect![
            "spec.store: `ftp://host/x` is not supported; write `file:` and a path, or `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`"
        ],
    );
    refused(
        "oocRatio: 0%",
        "oocRatio: 60%",
        &expect!["spec.training.oocRatio: must be at most 50%; 2% is usual"],
    );
    refused(
        "fine: 64",
        "fine: 2",
        &expect!["spec.clusters.fine: 2 fine centres cannot be divided among 4 experts"],
    );
}

#[test]
fn relative_paths_become_absolute_and_absolute_ones_stay() {
    let mut spec = RunSpec::parse(DEMO).unwrap();
    spec.resolve("/home/me");
    spec.resolve("/elsewhere");
    assert_eq!(spec.spec.store, "file:///home/me/clade-data");
    assert_eq!(spec.spec.dataset.shards, "/home/me/data/clipart/train/*.tar");
}

#[test]
fn proportional_steps_follow_the_experts_pairs() {
    let document = DEMO.replace("expertSteps: 144", "expertSteps: {proportional: 128000}");
    let spec = RunSpec::parse(&document).unwrap();
    let pairs = [1000, 2000, 3000, 4000];
    let due = |model| spec.due(model, &pairs).0 - 288;
    assert_eq!([0, 1, 2, 3].map(|index| due(ModelId::Expert(index))), [100, 200, 300, 400]);
    assert_eq!(due(ModelId::Dense), 250);
}

#[test]
fn a_document_too_long_to_be_kept_is_refused_however_it_hides_its_length() {
    let padded = |bytes: usize| format!("{DEMO}\n#{}\n", "x".repeat(bytes));
    assert!(RunSpec::parse(&padded(200 << 10)).is_ok());
    let error = RunSpec::parse(&padded(256 << 10)).unwrap_err();
    assert_eq!(error, SpecError::TooLong { most: 256 << 10 });
    assert!(error.to_string().contains("longer than 256 KiB"), "{error}");
    // One text, named many times.
    let folder = format!("&it /{}", "x".repeat(20_000));
    let many = std::iter::repeat_n("*it", 50).collect::<Vec<_>>().join(", ");
    let alias = DEMO.replace(
        "retrieval: [data/clipart/eval/retrieval]",
        &format!("retrieval: [{folder}, {many}]"),
    );
    assert_ne!(alias, DEMO, "the demo has one retrieval set");
    assert_eq!(RunSpec::parse(&alias).unwrap_err(), SpecError::TooLong { most: 256 << 10 });
    let mut spec = RunSpec::parse(DEMO).unwrap();
    spec.resolve(&format!("/{}", "x".repeat(100 << 10)));
    assert_eq!(spec.check_length(), Err(SpecError::TooLong { most: 256 << 10 }));
}
