//! Turns a YAML error into a sentence with line, key and the nearest known key.

/// Why a run document was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("line {line}: unknown key `{key}`{}", hint(.nearest.as_deref(), .known))]
    UnknownKey { line: u64, key: String, nearest: Option<String>, known: Vec<String> },
    #[error("line {line}: {message}")]
    Malformed { line: u64, message: String },
    #[error("{0}")]
    Rule(String),
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

pub(super) fn explain(error: &serde_saphyr::Error) -> SpecError {
    let error = error.without_snippet();
    let line = error.location().map_or(0, |at| at.line());
    if let serde_saphyr::Error::SerdeUnknownField { field, expected, .. } = error {
        let known: Vec<String> = expected.iter().map(|&name| name.to_owned()).collect();
        let nearest = known
            .iter()
            .map(|name| (strsim::damerau_levenshtein(name, field), name))
            .filter(|(distance, name)| *distance <= 1 + name.len() / 2)
            .min()
            .map(|(_, name)| name.clone());
        return SpecError::UnknownKey { line, key: field.clone(), nearest, known };
    }
    SpecError::Malformed { line, message: error.to_string() }
}
