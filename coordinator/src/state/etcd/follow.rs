//! A view of a cluster's keys that is told every change, through outages and compactions.
//!
//! It lists everything once and watches from there. A watch that breaks goes on where it was; if
//! that is compacted, or fails again and again, everything is listed anew.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Error, EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::keys::Keys;
use super::lead::{LARGEST_ANSWER, read_all};
use super::members::{DEADLINE, Members};
use super::trouble::Trouble;
use crate::state::{Change, Follow, Leader, Rows, Write};

const AFTER_TROUBLE: Duration = Duration::from_millis(300);

/// Breaks in a row after which what was missed is no longer waited for.
const BREAKS: u32 = 3;

pub(super) struct Following {
    members: Arc<Members>,
    keys: Keys,
    vacant: Arc<Notify>,
    /// Everything up to this revision was told; nothing was yet.
    told: Option<i64>,
    watch: Option<WatchStream>,
    breaks: u32,
    pending: VecDeque<Change>,
}

impl Following {
    pub(super) const fn new(members: Arc<Members>, keys: Keys, vacant: Arc<Notify>) -> Self {
        let pending = VecDeque::new();
        Self { members, keys, vacant, told: None, watch: None, breaks: 0, pending }
    }

    async fn list(&mut self) -> Result<(), Trouble> {
        let read = |client: etcd_client::Client| read_all(client.kv_client(), self.keys.all());
        let (found, revision) = self.members.ask(DEADLINE * 5, read).await?;
        let (mut rows, mut leader) = (Rows::new(), None);
        for value in found {
            match Place::of(&self.keys, &value) {
                Place::Row(key) => drop(rows.insert(key, value.value().to_vec())),
                Place::Leader => leader = decode(&value),
                Place::Other => (),
            }
        }
        self.told = Some(revision);
        self.note(leader.as_ref());
        self.pending.push_back(Change::Anew { rows, leader });
        Ok(())
    }

    async fn open_watch(&mut self, from: i64) -> Result<(), Trouble> {
        let (members, keys) = (&self.members, &self.keys);
        let open = |client: etcd_client::Client| async move {
            let options = WatchOptions::new().with_prefix().with_start_revision(from);
            let mut client = client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
            client.watch(keys.all(), Some(options)).await
        };
        self.watch = Some(members.ask(DEADLINE, open).await?);
        Ok(())
    }

    /// Takes one answer of the watch.
    fn take(&mut self, answer: Result<Option<WatchResponse>, Error>) -> Result<(), String> {
        let answer = answer.map_err(|error| error.to_string())?.ok_or("the watch ended")?;
        if answer.canceled() {
            if answer.compact_revision() > 0 {
                self.told = None;
                return Err(format!("compacted up to {}", answer.compact_revision()));
            }
            return Err(format!("cancelled: {}", answer.cancel_reason()));
        }
        self.breaks = 0;
        let mut writes = Vec::new();
        for event in answer.events() {
            let Some(value) = event.kv() else { continue };
            if self.told.is_some_and(|told| told < value.mod_revision()) && !writes.is_empty() {
                self.pending.push_back(Change::Writes(std::mem::take(&mut writes)));
            }
            self.told = Some(value.mod_revision());
            let is_put = event.event_type() == EventType::Put;
            match Place::of(&self.keys, value) {
                Place::Row(key) if is_put => {
                    writes.push(Write::Put { key, value: value.value().to_vec() });
                }
                Place::Row(key) => writes.push(Write::Delete { key }),
                Place::Leader => {
                    let leader = if is_put { decode(value) } else { None };
                    self.note(leader.as_ref());
                    self.pending.push_back(Change::Leader(leader));
                }
                Place::Other => (),
            }
        }
        if !writes.is_empty() {
            self.pending.push_back(Change::Writes(writes));
        }
        Ok(())
    }

    /// Wakes who campaigns if nobody leads.
    fn note(&self, leader: Option<&Leader>) {
        if leader.is_none() {
            self.vacant.notify_one();
        }
    }
}

#[tonic::async_trait]
impl Follow for Following {
    async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.pending.pop_front() {
                return change;
            }
            let trouble = match (self.told, &mut self.watch) {
                (None, _) => self.list().await.err().map(|trouble| trouble.to_string()),
                (Some(told), None) => {
                    self.open_watch(told + 1).await.err().map(|trouble| trouble.to_string())
                }
                (Some(_), Some(watch)) => {
                    let answer = watch.message().await;
                    self.take(answer).err()
                }
            };
            let Some(trouble) = trouble else { continue };
            self.watch = None;
            self.breaks += 1;
            if self.breaks == BREAKS {
                warn!(trouble, "cannot follow the state; lists it anew");
                self.told = None;
            } else {
                debug!(trouble, "follows the state again");
            }
            tokio::time::sleep(AFTER_TROUBLE).await;
        }
    }
}

/// What a key is.
enum Place {
    Row(String),
    Leader,
    Other,
}

impl Place {
    fn of(keys: &Keys, value: &KeyValue) -> Self {
        let key = String::from_utf8_lossy(value.key());
        if let Some(row) = keys.row_of(&key) {
            return Self::Row(row.to_owned());
        }
        if key == keys.leader() { Self::Leader } else { Self::Other }
    }
}

fn decode(value: &KeyValue) -> Option<Leader> {
    serde_json::from_slice(value.value())
        .inspect_err(|error| warn!(%error, "cannot read who leads"))
        .ok()
}
