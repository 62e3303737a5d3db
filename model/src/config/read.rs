//! Reads JSON objects key by key, and refuses what is left over.

use serde_json::{Map, Value, json};

use super::ConfigError;

/// One JSON object being read; its path is known, so errors can name keys in full.
pub(super) struct Section {
    path: String,
    rest: Map<String, Value>,
}

impl Section {
    pub(super) fn root(value: Value) -> Result<Self, ConfigError> {
        Self::from_value(String::new(), value)
    }

    fn from_value(path: String, value: Value) -> Result<Self, ConfigError> {
        match value {
            Value::Object(rest) => Ok(Self { path, rest }),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                let key = if path.is_empty() { "(the whole file)".to_owned() } else { path };
                Err(ConfigError::BadValue { key, expected: "an object", value })
            }
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn section(&mut self, key: &str) -> Result<Self, ConfigError> {
        let path = self.key(key);
        let found = self.optional_section(key)?;
        found.ok_or(ConfigError::Missing { key: path })
    }

    pub(super) fn optional_section(&mut self, key: &str) -> Result<Option<Self>, ConfigError> {
        let path = self.key(key);
        match self.rest.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => Self::from_value(path, value).map(Some),
        }
    }

    pub(super) fn number(&mut self, key: &str, default: f64) -> Result<f64, ConfigError> {
        Ok(self.optional_number(key)?.unwrap_or(default))
    }

    pub(super) fn optional_number(&mut self, key: &str) -> Result<Option<f64>, ConfigError> {
        let path = self.key(key);
        match self.rest.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(ConfigError::BadValue { key: path, expected: "a number", value }),
            },
        }
    }

    /// A token id.
    pub(super) fn id(&mut self, key: &str, default: i64) -> Result<i64, ConfigError> {
        let path = self.key(key);
        let Some(value) = self.rest.remove(key) else { return Ok(default) };
        let expected = "a token id";
        value.as_i64().filter(|id| (0..1 << 24).contains(id)).ok_or(ConfigError::BadValue {
            key: path,
            expected,
            value,
        })
    }

    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        let path = self.key(key);
        match self.rest.remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(value) => Err(ConfigError::BadValue { key: path, expected: "a text", value }),
        }
    }

    /// Which of `known` the key says; the first if it is not there.
    pub(super) fn one_of(&mut self, key: &str, known: &[&str]) -> Result<usize, ConfigError> {
        let path = self.key(key);
        match self.rest.remove(key) {
            None => Ok(0),
            Some(value) => known
                .iter()
                .position(|it| value.as_str() == Some(it))
                .ok_or(ConfigError::UnsupportedKey { key: path, value }),
        }
    }

    /// Drops a key that changes nothing.
    pub(super) fn ignore(&mut self, key: &str) {
        self.rest.remove(key);
    }

    /// Refuses picture towers that are no ViT, by the key that makes them so.
    pub(super) fn only_vit(&self) -> Result<(), ConfigError> {
        self.refuse("timm_model_name")?;
        match self.rest.get("layers") {
            Some(Value::Array(_)) => Err(self.unsupported("layers")),
            Some(_) | None => Ok(()),
        }
    }

    /// Refuses text towers that are not CLIP's own transformer.
    pub(super) fn only_plain_text(&self) -> Result<(), ConfigError> {
        self.refuse("hf_model_name")
    }

    fn refuse(&self, key: &str) -> Result<(), ConfigError> {
        match self.rest.get(key) {
            Some(Value::Null) | None => Ok(()),
            Some(_) => Err(self.unsupported(key)),
        }
    }

    fn unsupported(&self, key: &str) -> ConfigError {
        let value = self.rest.get(key).cloned().unwrap_or(Value::Null);
        ConfigError::UnsupportedKey { key: self.key(key), value }
    }

    pub(super) fn positive(&mut self, key: &str, default: Option<i64>) -> Result<i64, ConfigError> {
        let path = self.key(key);
        let Some(value) = self.rest.remove(key) else {
            return default.ok_or(ConfigError::Missing { key: path });
        };
        match value.as_i64() {
            // The bound keeps every product of two sizes within an i64.
            Some(number) if (1..=1 << 24).contains(&number) => Ok(number),
            Some(_) | None => {
                Err(ConfigError::BadValue { key: path, expected: "a positive whole number", value })
            }
        }
    }

    pub(super) fn ratio(&mut self, key: &str, default: f64) -> Result<f64, ConfigError> {
        let path = self.key(key);
        let Some(value) = self.rest.remove(key) else { return Ok(default) };
        match value.as_f64() {
            Some(number) if number > 0.0 && number <= 64.0 => Ok(number),
            Some(_) | None => Err(ConfigError::BadValue {
                key: path,
                expected: "a number above 0 and up to 64",
                value,
            }),
        }
    }

    pub(super) fn boolean(&mut self, key: &str, default: bool) -> Result<bool, ConfigError> {
        let path = self.key(key);
        let Some(value) = self.rest.remove(key) else { return Ok(default) };
        let expected = "true or false";
        value.as_bool().ok_or(ConfigError::BadValue { key: path, expected, value })
    }

    pub(super) fn colour(&mut self, key: &str, default: [f32; 3]) -> Result<[f32; 3], ConfigError> {
        let path = self.key(key);
        let Some(value) = self.rest.remove(key) else { return Ok(default) };
        #[expect(clippy::cast_possible_truncation, reason = "pictures are normalised in f32")]
        let parse = |value: &Value| -> Option<[f32; 3]> {
            let parts: Vec<f32> = value
                .as_array()?
                .iter()
                .map(|it| it.as_f64().map(|it| it as f32))
                .collect::<Option<_>>()?;
            parts.try_into().ok()
        };
        let expected = "three numbers";
        parse(&value).ok_or(ConfigError::BadValue { key: path, expected, value })
    }

    /// Accepts `key` if it says what we do anyway.
    pub(super) fn tolerate(&mut self, key: &str, neutral: &[Value]) -> Result<(), ConfigError> {
        let same = |one: &Value, other: &Value| match (one.as_f64(), other.as_f64()) {
            (Some(one), Some(other)) => one == other,
            _ => one == other,
        };
        match self.rest.remove(key) {
            Some(value) if !neutral.iter().any(|it| same(it, &value)) => {
                Err(ConfigError::UnsupportedKey { key: self.key(key), value })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Accepts the keys both towers have, as long as they leave the plain CLIP block alone.
    pub(super) fn tolerate_block_keys(&mut self) -> Result<(), ConfigError> {
        for key in ["timm_model_name", "hf_model_name"] {
            self.tolerate(key, &[Value::Null])?;
        }
        for key in [
            "output_tokens",
            "qk_norm",
            "scaled_cosine_attn",
            "scale_heads",
            "scale_attn_inner",
            "scale_attn",
            "scale_fc",
        ] {
            self.tolerate(key, &[json!(false)])?;
        }
        self.tolerate("block_type", &[Value::Null, json!("default")])
    }

    pub(super) fn divides(
        &self,
        key: &str,
        divisor: i64,
        expected: &'static str,
        whole: i64,
    ) -> Result<(), ConfigError> {
        if whole % divisor == 0 {
            return Ok(());
        }
        Err(ConfigError::BadValue { key: self.key(key), expected, value: json!(divisor) })
    }

    pub(super) fn finish(self) -> Result<(), ConfigError> {
        match self.rest.iter().next() {
            None => Ok(()),
            Some((key, value)) => {
                Err(ConfigError::UnsupportedKey { key: self.key(key), value: value.clone() })
            }
        }
    }
}
