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
    #[error(
        "the document is longer than {} KiB: a run is one dataset and a few settings, so look whether \
         this is another file; patterns such as `{{000000..000041}}.tar` name many tars in one line",
        .most >> 10
    )]
    TooLong { most: usize },
}

fn hint(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!("; did you mean `{nearest}`?"),
        None => format!("; known here: {}", known.join(", ")),
    }
}

pub(super) fn explain(error: &serde_saphyr::Error, document: &str) -> SpecError {
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
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text).to_owned();
    if matches!(error, serde_saphyr::Error::SerdeMissingField { .. }) {
        return SpecError::Malformed { line, message };
    }
    let message = match error.location().and_then(|at| key_at(document, at.line(), at.column())) {
        Some(key) => format!("key `{key}`: {message}"),
        None => message,
    };
    SpecError::Malformed { line, message }
}

/// The key that the value at a place (both counted from 1) belongs to, as far as its line shows.
fn key_at(document: &str, line: u64, column: u64) -> Option<&str> {
    let line = document.lines().nth(usize::try_from(line).ok()?.checked_sub(1)?)?;
    let at = line.char_indices().nth(usize::try_from(column).ok()?.checked_sub(1)?)?.0;
    let is_key = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    let (before, after) = line.split_at(at);
    let own = after
        .split(|c| !is_key(c))
        .next()
        .filter(|own| !own.is_empty() && after[own.len()..].starts_with(':'));
    own.or_else(|| before.trim_end().strip_suffix(':')?.rsplit(|c| !is_key(c)).next())
        .filter(|key| !key.is_empty())
}
