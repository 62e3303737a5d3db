//! A view of a cluster's keys that is told every change, through outages and compactions.
//!
//! It lists everything once and watches from there. A watch that breaks goes on where it was; if
//! that is compacted, or fails again and again, everything is listed anew. A watch that is silent may
//! have nothing to tell or be cut off, so every other second etcd is asked for the newest transaction:
//! once that one was told, the view is confirmed as of when it was asked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::{Error, EventType, KeyValue, WatchOptions, WatchResponse, WatchStream};
use futures::future::BoxFuture;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::keys::Keys;
use super::lead::{LARGEST_ANSWER, read_all};
use super::members::{DEADLINE, Members};
use super::trouble::Trouble;
use crate::state::{Change, Follow, Leader, Rows, Write};

const AFTER_TROUBLE: Duration = Duration::from_millis(300);

/// Between two confirmations.
const BETWEEN: Duration = Duration::from_secs(2);

/// What etcd has written for so long and the watch has not told is no longer waited for.
const BEHIND: Duration = Duration::from_secs(4);

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
    /// Kept over calls, or changes that come fast would never let it end.
    asking: Option<BoxFuture<'static, Result<Newest, Trouble>>>,
    /// Once the watch has come that far, the view is as etcd was then.
    awaited: Option<Newest>,
}

/// Revision of the newest transaction there is, and when that was asked.
#[derive(Clone, Copy)]
struct Newest {
    revision: i64,
    asked: Instant,
}

impl Following {
    pub(super) fn new(members: Arc<Members>, keys: Keys, vacant: Arc<Notify>) -> Self {
        let (pending, asking, awaited) = (VecDeque::new(), None, None);
        Self { members, keys, vacant, told: None, watch: None, breaks: 0, pending, asking, awaited }
    }

    /// Asks for the newest transaction, after a while: every transaction writes the marker.
    fn ask(&self) -> BoxFuture<'static, Result<Newest, Trouble>> {
        let (members, marker) = (Arc::clone(&self.members), self.keys.marker());
        Box::pin(async move {
            tokio::time::sleep(BETWEEN).await;
            let asked = Instant::now();
            let get = |client: etcd_client::Client| {
                let marker = marker.clone();
                async move { Ok(client.kv_client().get(marker, None).await?.take_kvs().pop()) }
            };
            let found = members.ask(DEADLINE, get).await?;
            Ok(Newest { revision: found.map_or(0, |marker| marker.mod_revision()), asked })
        })
    }

    /// Takes the answer about the newest transaction; fails if the watch is far behind it.
    fn take_newest(&mut self, newest: Result<Newest, Trouble>) -> Result<(), String> {
        self.asking = None;
        let newest = match newest {
            Ok(newest) => newest,
            Err(trouble) => {
                // The watch may be well: it stands on a connection of its own, and says when it is not.
                debug!(%trouble, "cannot confirm what is followed");
                return Ok(());
            }
        };
        self.breaks = 0;
        let is_behind = self.awaited.is_some_and(|it| newest.asked > it.asked + BEHIND);
        // The older question is answered first, however fast changes come.
        self.awaited.get_or_insert(newest);
        self.confirm();
        if is_behind && self.awaited.is_some() {
            self.awaited = None;
            return Err("the watch does not tell what was written".to_owned());
        }
        Ok(())
    }

    fn confirm(&mut self) {
        let (Some(Newest { revision, asked }), Some(told)) = (self.awaited, self.told) else {
            return;
        };
        if told >= revision {
            self.awaited = None;
            self.pending.push_back(Change::Confirmed { as_of: asked });
        }
    }

    async fn list(&mut self) -> Result<(), Trouble> {
        let asked = Instant::now();
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
        self.awaited = None;
        self.pending.push_back(Change::Confirmed { as_of: asked });
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
        self.confirm();
        Ok(())
    }

    /// Takes whatever the open watch or etcd says next.
    async fn listen(&mut self) -> Result<(), String> {
        let asking = match self.asking.take() {
            Some(asking) => asking,
            None => self.ask(),
        };
        let asking = self.asking.insert(asking);
        let Some(watch) = &mut self.watch else { return Ok(()) };
        // Both are safe to cancel: the one is a stream, the other stays where it is.
        tokio::select! {
            biased;
            newest = asking => self.take_newest(newest),
            answer = watch.message() => self.take(answer),
        }
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
                (Some(_), Some(_)) => self.listen().await.err(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::options::EtcdPlace;

    #[test]
    fn a_view_is_confirmed_once_it_has_told_what_etcd_had_and_given_up_if_it_never_does() {
        let (urls, prefix) = (vec!["http://nobody:1".to_owned()], "/clade/a".to_owned());
        let place = EtcdPlace { urls, prefix, ca: None, identity: None, user: None };
        let keys = Keys::new(&place.prefix);
        let mut following =
            Following::new(Arc::new(Members::new(&place)), keys, Arc::new(Notify::new()));
        following.told = Some(5);
        let asked = Instant::now();
        following.take_newest(Ok(Newest { revision: 7, asked })).unwrap();
        // Later questions do not put the first one off.
        let later = asked + BEHIND / 2;
        following.take_newest(Ok(Newest { revision: 9, asked: later })).unwrap();
        following.told = Some(6);
        following.confirm();
        assert!(following.pending.is_empty(), "revision 7 was not told yet");
        following.told = Some(7);
        following.confirm();
        assert_eq!(following.pending.pop_front(), Some(Change::Confirmed { as_of: asked }));

        following.take_newest(Ok(Newest { revision: 9, asked: later })).unwrap();
        let far = later + BEHIND * 2;
        let behind = following.take_newest(Ok(Newest { revision: 9, asked: far })).unwrap_err();
        assert_eq!(behind, "the watch does not tell what was written");
        assert!(following.pending.is_empty());
    }
}
