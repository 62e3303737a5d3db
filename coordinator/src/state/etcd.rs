//! The etcd backend: rows below a prefix, and an election among coordinators.
//!
//! Whoever holds the leadership key leads. The key hangs on a lease, and the transaction that
//! creates it counts the term up. It refuses to guess: a leader that cannot find out what became
//! of a transaction steps down.

mod follow;
mod keys;
mod lead;
mod lease;
mod members;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use clade_core::ids::Term;
use etcd_client::{
    Compare, CompareOp, GetOptions, KeyValue, PutOptions, Txn, TxnOp, TxnOpResponse,
};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::format::FORMAT;
use super::identity::Identity;
use super::options::EtcdPlace;
use super::{Backend, Follow, Lead, Leader, OpenError};
use follow::Following;
use keys::{Keys, mark};
use lead::EtcdLead;
use lease::{LIFE, Lease};
use members::{DEADLINE, Members};
use trouble::Trouble;

/// How often a standby looks whether anybody leads, should it not be told.
const LOOK: Duration = Duration::from_secs(1);

/// How often an outage is spoken of.
const SPEAK: Duration = Duration::from_secs(5);

/// One cluster's place in etcd.
pub(crate) struct Etcd {
    members: Arc<Members>,
    keys: Keys,
    place: String,
    cluster: String,
    advertise: String,
    /// Told by whoever looks on that nobody leads any more.
    vacant: Arc<Notify>,
}

/// Why one attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum Attempt {
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error(transparent)]
    Open(#[from] OpenError),
}

impl Etcd {
    /// Waits until etcd answers; checks whose place it is, and makes an empty one `cluster`'s.
    pub(crate) async fn open(
        place: &EtcdPlace,
        cluster: &str,
        advertise: &str,
    ) -> Result<Self, OpenError> {
        let members = Arc::new(Members::new(place));
        let etcd = Self {
            place: format!("{} in etcd at {}", place.prefix, members.all()),
            members,
            keys: Keys::new(&place.prefix),
            cluster: cluster.to_owned(),
            advertise: advertise.to_owned(),
            vacant: Arc::default(),
        };
        let mut spoke: Option<Instant> = None;
        loop {
            match etcd.identify().await {
                Ok(()) => return Ok(etcd),
                Err(Attempt::Open(error)) => return Err(error),
                Err(Attempt::Trouble(Trouble::Refused { url, reason })) => {
                    return Err(OpenError::Refused { url, reason });
                }
                Err(Attempt::Trouble(trouble)) => {
                    if spoke.is_none_or(|at| at.elapsed() > SPEAK) {
                        warn!(%trouble, "etcd does not answer; tries again");
                        spoke = Some(Instant::now());
                    }
                }
            }
            tokio::time::sleep(LOOK / 2).await;
        }
    }

    async fn identify(&self) -> Result<(), Attempt> {
        let key = self.keys.cluster();
        if let Some(found) = self.get(&key).await? {
            let identity = Identity::decode(&self.place, &key, found.value())?;
            return Ok(identity.check(&self.place, &self.cluster)?);
        }
        if let Some(key) = self.any_key().await? {
            // Another coordinator may have made the place its own since we looked.
            if self.get(&self.keys.cluster()).await?.is_some() {
                return Box::pin(self.identify()).await;
            }
            return Err(OpenError::Foreign { place: self.place.clone(), key }.into());
        }
        let identity = Identity::draw(&self.cluster, FORMAT);
        let txn = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then([TxnOp::put(key, identity.encode(), None)]);
        // Whether it was this one that made it or another one: what is there now is what counts.
        let send = |client: etcd_client::Client| {
            let txn = txn.clone();
            async move { client.kv_client().txn(txn).await }
        };
        self.members.ask_until_answered(send).await?;
        Box::pin(self.identify()).await
    }

    async fn get(&self, key: &str) -> Result<Option<KeyValue>, Trouble> {
        let get = |client: etcd_client::Client| async move {
            Ok(client.kv_client().get(key, None).await?.take_kvs().pop())
        };
        self.members.ask_until_answered(get).await
    }

    /// Any key below the prefix.
    async fn any_key(&self) -> Result<Option<String>, Trouble> {
        let get = |client: etcd_client::Client| async move {
            let options = GetOptions::new().with_prefix().with_limit(1).with_keys_only();
            Ok(client.kv_client().get(self.keys.all(), Some(options)).await?.take_kvs().pop())
        };
        let found = self.members.ask_until_answered(get).await?;
        Ok(found.map(|found| String::from_utf8_lossy(found.key()).into_owned()))
    }

    /// Takes the lead if nobody has it.
    async fn attempt(&self) -> Result<Option<EtcdLead>, Attempt> {
        if self.get(&self.keys.leader()).await?.is_some() {
            return Ok(None);
        }
        let cluster = self.get(&self.keys.cluster()).await?;
        let Some(cluster) = cluster else {
            self.identify().await?;
            return Ok(None);
        };
        let identity = Identity::decode(&self.place, &self.keys.cluster(), cluster.value())?;
        identity.check(&self.place, &self.cluster)?;
        let last = self.get(&self.keys.term()).await?;
        let term = match &last {
            Some(last) => decode_term(&self.place, &self.keys.term(), last.value())?,
            None => Term(0),
        }
        .next();

        let asked = Instant::now();
        let life = i64::try_from(LIFE.as_secs()).expect("a few seconds fit");
        let grant = |client: etcd_client::Client| async move {
            Ok(client.lease_client().grant(life, None).await?.id())
        };
        let id = self.members.ask(DEADLINE, grant).await?;
        let lease = Lease::keep(Arc::clone(&self.members), id, asked);

        let leader = Leader { address: self.advertise.clone(), term };
        let leader = serde_json::to_vec(&leader).expect("a text and a number are always JSON");
        let held = PutOptions::new().with_lease(id);
        let seen = last.map_or(0, |last| last.mod_revision());
        let key = self.keys.leader();
        let txn = Txn::new()
            .when([
                Compare::create_revision(key.clone(), CompareOp::Equal, 0),
                Compare::mod_revision(self.keys.term(), CompareOp::Equal, seen),
                Compare::mod_revision(
                    self.keys.cluster(),
                    CompareOp::Equal,
                    cluster.mod_revision(),
                ),
            ])
            .and_then([
                TxnOp::put(key.clone(), leader, Some(held)),
                TxnOp::put(self.keys.term(), term.0.to_string(), None),
                TxnOp::put(self.keys.marker(), mark(term, 0), None),
            ])
            .or_else([TxnOp::get(key, None)]);
        let Some(guard) = self.take(id, &lease, &txn).await? else { return Ok(None) };
        let (members, keys) = (Arc::clone(&self.members), self.keys.clone());
        info!(%term, lease = format!("{id:x}"), "holds the leadership key");
        Ok(Some(EtcdLead::new(members, keys, term, guard, id, lease, identity)))
    }

    /// Sends the transaction that takes the lead until its outcome is known; gives the key's create revision.
    async fn take(&self, id: i64, lease: &Lease, txn: &Txn) -> Result<Option<i64>, Trouble> {
        loop {
            let send = |client: etcd_client::Client| {
                let txn = txn.clone();
                async move { client.kv_client().txn(txn).await }
            };
            match self.members.ask(DEADLINE, send).await {
                Ok(answer) if answer.succeeded() => {
                    return Ok(answer.header().map(etcd_client::ResponseHeader::revision));
                }
                Ok(answer) => {
                    // Ours if an earlier sending of it took effect.
                    let holder = first_value(answer.op_responses());
                    let ours = holder.filter(|holder| holder.lease() == id);
                    return Ok(ours.map(|ours| ours.create_revision()));
                }
                // Without its lease a late sending of it can take no effect either.
                Err(trouble) if !lease.is_held() => return Err(trouble),
                Err(trouble) => {
                    warn!(%trouble, "cannot tell whether it took the lead; asks again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

#[tonic::async_trait]
impl Backend for Etcd {
    async fn campaign(&self) -> Result<Box<dyn Lead>, OpenError> {
        let mut spoke: Option<Instant> = None;
        loop {
            match self.attempt().await {
                Ok(Some(lead)) => return Ok(Box::new(lead)),
                Ok(None) => (),
                Err(Attempt::Open(error)) => return Err(error),
                Err(Attempt::Trouble(trouble)) => {
                    if spoke.is_none_or(|at| at.elapsed() > SPEAK) {
                        warn!(%trouble, "cannot campaign; tries again");
                        spoke = Some(Instant::now());
                    }
                }
            }
            tokio::time::timeout(LOOK, self.vacant.notified()).await.ok();
        }
    }

    fn follow(&self) -> Box<dyn Follow> {
        let (members, keys) = (Arc::clone(&self.members), self.keys.clone());
        Box::new(Following::new(members, keys, Arc::clone(&self.vacant)))
    }
}

fn decode_term(place: &str, key: &str, value: &[u8]) -> Result<Term, OpenError> {
    let text = String::from_utf8_lossy(value);
    text.parse().map(Term).map_err(|error: std::num::ParseIntError| OpenError::Garbled {
        place: place.to_owned(),
        key: key.to_owned(),
        reason: error.to_string(),
    })
}

/// The value that the first operation of a transaction read.
fn first_value(answers: Vec<TxnOpResponse>) -> Option<KeyValue> {
    answers.into_iter().find_map(|answer| match answer {
        TxnOpResponse::Get(mut found) => found.take_kvs().pop(),
        TxnOpResponse::Put(_) | TxnOpResponse::Delete(_) | TxnOpResponse::Txn(_) => None,
    })
}
