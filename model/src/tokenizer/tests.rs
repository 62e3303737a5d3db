//! Golden ids from open_clip; `tests/golden/make_golden.py` holds the Python lines.

use super::*;

/// The vocabulary that set-up lays out, or none on a machine without it.
fn tokenizer() -> Option<Tokenizer> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../assets/clip-bpe/bpe_simple_vocab_16e6.txt.gz");
    if !path.exists() {
        eprintln!("skipped: {} is not there, `make setup` fetches it", path.display());
        return None;
    }
    Some(Tokenizer::from_file(&path).unwrap())
}

#[derive(serde::Deserialize)]
struct Line {
    text: String,
    ids: Vec<i64>,
}

#[test]
fn ids_equal_those_of_open_clip() {
    let Some(tokenizer) = tokenizer() else { return };
    let golden = include_str!("../../tests/golden/tokens.json");
    let lines: Vec<Line> = serde_json::from_str(golden).unwrap();
    assert!(lines.len() >= 30);
    for Line { text, ids } in lines {
        assert_eq!(tokenizer.encode_row(&text, 32), ids, "{text:?}");
    }
}

#[test]
fn an_over_long_text_keeps_its_end() {
    let Some(tokenizer) = tokenizer() else { return };
    let row = tokenizer.encode_row(&"cat ".repeat(50), 8);
    assert_eq!((row.len(), row[0], row[7]), (8, 49_406, 49_407));
    assert_eq!(row.iter().filter(|&&id| id == 49_407).count(), 1);
}

#[test]
fn a_file_that_is_no_vocabulary_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vocabulary.gz");
    std::fs::write(&path, b"not gzip").unwrap();
    let message = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(message.contains("vocabulary.gz"), "{message}");
}
