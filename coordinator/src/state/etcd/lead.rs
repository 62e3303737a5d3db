//! The leader's hand: reads and writes that only the holder of the leadership key can make.
//!
//! Every transaction is guarded by that key's create revision, so a deposed leader writes nothing,
//! and by the marker of the transaction before it, so it takes effect once however often it is
//! sent, and a late copy of an older one takes none. That is how one of unknown outcome is found
//! out about: it is sent again, and etcd's answer to that one tells.

use std::sync::Arc;
use std::time::Duration;

use clade_core::ids::Term;
use etcd_client::{
    Compare, CompareOp, Error, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::SPEAK;
use super::keys::{Keys, mark};
use super::lease::Lease;
use super::members::{DEADLINE, Members};
use super::trouble::Trouble;
use crate::state::format::{FORMAT, migrate};
use crate::state::identity::Identity;
use crate::state::{Cluster, Lead, LeadError, MOST_KEYS, Rows, Write, check_size};

/// Rows read at a time, so that no answer grows without bound.
const PAGE: i64 = 500;

/// The largest answer that is taken: a page of the largest rows would be refused by any other limit.
pub(super) const LARGEST_ANSWER: usize = 256 << 20;

const RESIGNING: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

pub(super) struct EtcdLead {
    members: Arc<Members>,
    keys: Keys,
    term: Term,
    /// Create revision of the leadership key.
    guard: i64,
    id: i64,
    lease: Lease,
    identity: Identity,
    /// The last transaction known to have taken effect.
    last: u64,
    /// The last one that was ever sent: one that nobody waited for must not share a name with another.
    named: u64,
}

impl EtcdLead {
    pub(super) const fn new(
        members: Arc<Members>,
        keys: Keys,
        term: Term,
        guard: i64,
        id: i64,
        lease: Lease,
        identity: Identity,
    ) -> Self {
        Self { members, keys, term, guard, id, lease, identity, last: 0, named: 0 }
    }

    fn deposed(&self, why: impl Into<String>) -> LeadError {
        LeadError::Deposed { term: self.term, why: why.into() }
    }

    /// Makes one transaction take effect exactly once, or finds out that it never will.
    async fn transact(&mut self, mut operations: Vec<TxnOp>) -> Result<(), LeadError> {
        self.named += 1;
        let (last, this) = (mark(self.term, self.last), mark(self.term, self.named));
        let (leader, marker) = (self.keys.leader(), self.keys.marker());
        operations.push(TxnOp::put(marker.clone(), this.clone(), None));
        let txn = Txn::new()
            .when([
                Compare::create_revision(leader.clone(), CompareOp::Equal, self.guard),
                Compare::value(marker.clone(), CompareOp::Equal, last),
            ])
            .and_then(operations)
            .or_else([TxnOp::get(leader, None), TxnOp::get(marker, None)]);
        let answer = self.send(&txn).await?;
        if !answer.succeeded() {
            let found = |key: &str| found(&answer, key);
            let guard = found(&self.keys.leader()).map_or(0, |leader| leader.create_revision());
            if guard != self.guard {
                return Err(self.deposed("another coordinator has taken the lead"));
            }
            // The same transaction, sent before, took effect and its answer was lost.
            let marker = found(&self.keys.marker()).map(|marker| marker.value().to_vec());
            if marker.as_deref() != Some(this.as_bytes()) {
                error!(?marker, "somebody without the lead has written to the state");
                return Err(self.deposed("the state was written by somebody else"));
            }
        }
        self.last = self.named;
        Ok(())
    }

    /// Sends a transaction until etcd says what became of it.
    async fn send(&self, txn: &Txn) -> Result<TxnResponse, LeadError> {
        let send = |client: etcd_client::Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        };
        let ask = || self.members.ask(DEADLINE, send);
        self.insist(ask, "cannot save").await
    }

    /// Asks until there is an answer or the lead is lost.
    async fn insist<T, F>(&self, ask: impl Fn() -> F, what: &'static str) -> Result<T, LeadError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let lost = self.lease.lost();
        let mut wait = Duration::from_millis(50);
        let mut spoke: Option<Instant> = None;
        loop {
            if !self.lease.is_held() {
                return Err(self.deposed("etcd did not answer while the lease lasted"));
            }
            let trouble = tokio::select! {
                () = lost.cancelled() => continue,
                answer = ask() => match answer {
                    Ok(answer) => return Ok(answer),
                    Err(trouble) => trouble,
                },
            };
            if spoke.is_none_or(|at| at.elapsed() > SPEAK) {
                if trouble.is_for_people() || matches!(trouble, Trouble::Full { .. }) {
                    error!(%trouble, "{what}; tries again");
                } else {
                    warn!(%trouble, "{what}; tries again");
                }
                spoke = Some(Instant::now());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Brings rows of an older format up to this program's.
    async fn migrate(&mut self, mut rows: Rows) -> Result<Rows, LeadError> {
        if self.identity.format == FORMAT {
            return Ok(rows);
        }
        let writes = migrate(self.identity.format, &rows);
        info!(
            from = self.identity.format,
            to = FORMAT,
            writes = writes.len(),
            "migrates the state"
        );
        for part in writes.chunks(MOST_KEYS) {
            self.save(part).await?;
        }
        for write in writes {
            write.apply(&mut rows);
        }
        self.identity.format = FORMAT;
        let put = TxnOp::put(self.keys.cluster(), self.identity.encode(), None);
        self.transact(vec![put]).await?;
        Ok(rows)
    }
}

/// What the refusing half of a transaction read at `key`.
fn found(answer: &TxnResponse, key: &str) -> Option<KeyValue> {
    let values = answer.op_responses().into_iter().filter_map(|answer| match answer {
        TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    });
    values.into_iter().find(|value| value.key() == key.as_bytes())
}

/// Reads all below `prefix` as of one moment; gives that moment's revision.
pub(super) async fn read_all(
    mut client: etcd_client::KvClient,
    prefix: String,
) -> Result<(Vec<KeyValue>, i64), Error> {
    client = client.max_decoding_message_size(LARGEST_ANSWER);
    let mut end = prefix.clone().into_bytes();
    // The prefix ends in a slash: the next byte ends the range.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    let (mut from, mut all, mut revision) = (prefix.into_bytes(), Vec::new(), 0);
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
        let mut page = client.get(from, Some(options.with_revision(revision))).await?;
        if revision == 0 {
            revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        }
        let is_last = !page.more();
        all.append(&mut page.take_kvs());
        let Some(last) = all.last().filter(|_| !is_last) else { return Ok((all, revision)) };
        from = last.key().to_vec();
        from.push(0);
    }
}

#[tonic::async_trait]
impl Lead for EtcdLead {
    fn term(&self) -> Term {
        self.term
    }

    fn cluster(&self) -> Cluster {
        self.identity.cluster()
    }

    async fn load(&mut self) -> Result<Rows, LeadError> {
        let read = |client: etcd_client::Client| read_all(client.kv_client(), self.keys.rows());
        // Many pages take longer than one request.
        let ask = || self.members.ask(DEADLINE * 5, read);
        let (found, _) = self.insist(ask, "cannot load").await?;
        let rows = found.into_iter().filter_map(|row| {
            let (key, value) = row.into_key_value();
            let key = String::from_utf8(key).ok()?;
            Some((self.keys.row_of(&key)?.to_owned(), value))
        });
        let rows = rows.collect();
        self.migrate(rows).await
    }

    async fn save(&mut self, writes: &[Write]) -> Result<(), LeadError> {
        check_size(writes)?;
        let operation = |write: &Write| match write {
            Write::Put { key, value } => TxnOp::put(self.keys.row(key), value.clone(), None),
            Write::Delete { key } => TxnOp::delete(self.keys.row(key), None),
        };
        let operations = writes.iter().map(operation).collect();
        self.transact(operations).await
    }

    fn lost(&self) -> CancellationToken {
        self.lease.lost()
    }

    fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    async fn resign(self: Box<Self>) {
        let Self { members, id, lease, .. } = *self;
        drop(lease);
        let revoke =
            |client: etcd_client::Client| async move { client.lease_client().revoke(id).await };
        if let Err(trouble) = members.ask(RESIGNING, revoke).await {
            info!(%trouble, "could not give the lead up; it runs out by itself");
        }
    }
}
