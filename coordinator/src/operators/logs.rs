//! The ends of a run's logs, of which no answer holds more than fits in memory.

use clade_core::ids::{RunName, Stage, WorkId};
use clade_proto::v1;
use clade_store::{Store, StoreError, keys};

/// Bytes of each log shown unless asked for more or less.
const DEFAULT_TAIL: u64 = 64 << 10;

/// Bytes of each log shown at most: the log itself lies in the store for whoever wants it whole.
const LONGEST_TAIL: u64 = 1 << 20;

/// Bytes of all logs in one answer.
const LARGEST_ANSWER: u64 = 16 << 20;

/// The end of each log of `work`, `tail_bytes` long or the default if 0.
pub(super) async fn tails(
    store: &Store,
    run: &RunName,
    work: &str,
    tail_bytes: u64,
) -> Result<v1::GetLogsResponse, StoreError> {
    let tail = if tail_bytes == 0 { DEFAULT_TAIL } else { tail_bytes.min(LONGEST_TAIL) };
    let root = keys::run(run);
    let mut found = v1::GetLogsResponse::default();
    let mut room = LARGEST_ANSWER;
    for prefix in prefixes(work) {
        for entry in store.list(&format!("{root}/{prefix}")).await? {
            let name = entry.key.strip_prefix(&format!("{root}/")).unwrap_or(&entry.key);
            if !name.ends_with(".log") || !is_wanted(name, work) {
                continue;
            }
            let from = entry.bytes.saturating_sub(tail);
            let Some(left) = room.checked_sub(entry.bytes - from) else {
                found.left_out += 1;
                continue;
            };
            let bytes = match store.get_range(&entry.key, from..entry.bytes).await {
                Ok(bytes) => bytes,
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error),
            };
            room = left;
            found.logs.push(v1::Log {
                name: name.to_owned(),
                text: String::from_utf8_lossy(&bytes).into_owned(),
                is_cut: from > 0,
            });
        }
    }
    Ok(found)
}

/// Folders of a run in which the logs of `work` may lie.
fn prefixes(work: &str) -> Vec<String> {
    if work.is_empty() {
        return vec!["models".to_owned(), "logs".to_owned()];
    }
    match work.parse::<WorkId>() {
        Ok(WorkId::Model(model)) => vec![format!("models/{model}")],
        Ok(WorkId::Job(job)) => vec![format!("logs/{job}")],
        Err(_) => vec!["logs".to_owned()],
    }
}

/// Whether a log belongs to `work`: a work, a stage, or everything.
fn is_wanted(name: &str, work: &str) -> bool {
    let is_stage = work.parse::<Stage>().is_ok();
    work.is_empty()
        || work.parse::<WorkId>().is_ok()
        || is_stage && name.starts_with(&format!("logs/{work}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_log_and_no_answer_is_longer_than_it_may_be_and_what_is_cut_says_so() {
        let (store, run): (_, RunName) = (Store::in_memory(), "a".parse().unwrap());
        let long = vec![b'x'; usize::try_from(LONGEST_TAIL + 5).unwrap()];
        for part in 0..20 {
            let key = format!("{}/logs/embed.{part}/try-1.log", keys::run(&run));
            store.put(&key, long.clone()).await.unwrap();
        }
        let one = tails(&store, &run, "embed.3", u64::MAX).await.unwrap();
        assert_eq!((one.logs.len(), one.left_out), (1, 0));
        assert_eq!((one.logs[0].text.len() as u64, one.logs[0].is_cut), (LONGEST_TAIL, true));
        let all = tails(&store, &run, "embed", u64::MAX).await.unwrap();
        assert_eq!((all.logs.len(), all.left_out), (16, 4));
        let short = tails(&store, &run, "", 0).await.unwrap();
        assert_eq!((short.logs.len(), short.left_out), (20, 0));
        assert!(short.logs.iter().all(|log| log.text.len() as u64 == DEFAULT_TAIL && log.is_cut));
    }
}
