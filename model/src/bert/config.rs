//! The keys of a BERT `config.json` that decide its shape.

use serde_json::Value;

/// Shape of a BERT encoder.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct BertConfig {
    pub(super) width: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) inner_width: usize,
    pub(super) vocabulary: usize,
    pub(super) max_positions: usize,
    pub(super) token_types: usize,
    pub(super) norm_eps: f64,
}

impl BertConfig {
    /// Reads the file's text; an error names the key and what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, (String, String)> {
        let root: Value = serde_json::from_str(text)
            .map_err(|error| ("(the whole file)".to_owned(), format!("is not JSON: {error}")))?;
        let wrong = |key: &str, why: String| (key.to_owned(), why);
        let size = |key: &str| {
            let found =
                root.get(key).and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok());
            match found {
                Some(size) if (1..=1 << 24).contains(&size) => Ok(size),
                Some(_) | None => Err(wrong(key, "must be a positive whole number".to_owned())),
            }
        };
        for (key, known) in [
            ("model_type", "bert"),
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ] {
            match root.get(key).and_then(Value::as_str) {
                Some(found) if found != known => {
                    return Err(wrong(key, format!("is {found:?}: only {known:?} is supported")));
                }
                Some(_) | None => (),
            }
        }
        let config = Self {
            width: size("hidden_size")?,
            layers: size("num_hidden_layers")?,
            heads: size("num_attention_heads")?,
            inner_width: size("intermediate_size")?,
            vocabulary: size("vocab_size")?,
            max_positions: size("max_position_embeddings")?,
            token_types: size("type_vocab_size")?,
            norm_eps: root.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(1e-12),
        };
        if !config.width.is_multiple_of(config.heads) {
            let why = format!("is {}, which does not divide {}", config.heads, config.width);
            return Err(wrong("num_attention_heads", why));
        }
        Ok(config)
    }
}
