//! Golden embeddings from transformers; `tests/golden/make_sentences.py` holds the Python lines.

use super::*;

fn encoder() -> Option<SentenceEncoder> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/all-minilm-l6-v2");
    if !dir.exists() {
        eprintln!("skipped: {} is not there, `make setup` fetches it", dir.display());
        return None;
    }
    Some(SentenceEncoder::load(&dir).unwrap())
}

#[test]
fn embeddings_equal_those_of_transformers_in_the_order_given() {
    let Some(encoder) = encoder() else { return };
    let texts: Vec<String> =
        serde_json::from_str(include_str!("../../tests/golden/sentences.json")).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/sentences.safetensors");
    let golden = Tensor::read_safetensors(path).unwrap().remove(0).1;
    let found = encoder.embed(&texts).unwrap();
    assert_eq!(found.size(), golden.size());
    let off = (&found - &golden).abs().max().double_value(&[]);
    assert!(off < 1e-5, "off by {off}");
    assert_eq!(encoder.width(), 384);
}

#[test]
fn no_captions_give_no_rows() {
    let Some(encoder) = encoder() else { return };
    assert_eq!(encoder.embed(&[]).unwrap().size(), [0, 384]);
}

#[test]
fn another_architecture_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), r#"{"model_type": "mpnet"}"#).unwrap();
    let message = SentenceEncoder::load(dir.path()).unwrap_err().to_string();
    assert!(message.contains("model_type is \"mpnet\""), "{message}");
}
