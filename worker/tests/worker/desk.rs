//! The coordinator's end of the wire, with a test's hand on it: a real server, no decisions.

use std::net::SocketAddr;
use std::time::Duration;

use clade_proto::v1::session_request::Report;
use clade_proto::v1::session_response::Order;
use clade_proto::v1::worker_service_server::{WorkerService, WorkerServiceServer};
use clade_proto::v1::{
    Acknowledge, Fence, Hello, RefusalReason, Refused, SessionRequest, SessionResponse, Welcome,
};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Request, Response, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(60);

/// A listening coordinator.
pub(crate) struct Desk {
    pub(crate) address: SocketAddr,
    sessions: Mutex<mpsc::Receiver<Session>>,
    /// Ends with the desk, and the port with it.
    _server: JoinSet<()>,
}

/// One worker's stream.
pub(crate) struct Session {
    reports: Streaming<SessionRequest>,
    orders: mpsc::Sender<Result<SessionResponse, Status>>,
    pub(crate) term: u64,
}

struct Service(mpsc::Sender<Session>);

/// A coordinator that does not lead, and says who does.
struct Standby(MetadataValue<Ascii>);

#[tonic::async_trait]
impl WorkerService for Standby {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        _request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut status = Status::unavailable("another coordinator leads");
        status.metadata_mut().insert("clade-leader", self.0.clone());
        Err(status)
    }
}

#[tonic::async_trait]
impl WorkerService for Service {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (orders, queued) = mpsc::channel(64);
        let session = Session { reports: request.into_inner(), orders, term: 1 };
        self.0.send(session).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(queued)))
    }
}

impl Desk {
    pub(crate) async fn open() -> Self {
        let (found, sessions) = mpsc::channel(8);
        let (address, server) = serve(Service(found)).await;
        Self { address, sessions: Mutex::new(sessions), _server: server }
    }

    /// A desk that sends every caller to this one.
    pub(crate) async fn standby(&self) -> Self {
        let leader = self.address.to_string().parse().unwrap();
        let (_, sessions) = mpsc::channel(1);
        let (address, server) = serve(Standby(leader)).await;
        Self { address, sessions: Mutex::new(sessions), _server: server }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next worker to call.
    pub(crate) async fn caller(&self) -> Session {
        let mut sessions = self.sessions.lock().await;
        tokio::time::timeout(PATIENCE, sessions.recv()).await.expect("nobody calls").unwrap()
    }

    /// The next worker to call, welcomed under `term`.
    pub(crate) async fn guest(&self, term: u64) -> (Session, Hello) {
        let mut session = self.caller().await;
        session.term = term;
        let hello = session.hello().await;
        session.order(Order::Welcome(Welcome { heartbeat_ms: 200 })).await;
        (session, hello)
    }
}

async fn serve(service: impl WorkerService) -> (SocketAddr, JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(WorkerServiceServer::new(service))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let mut tasks = JoinSet::new();
    tasks.spawn(async { server.await.unwrap() });
    (address, tasks)
}

impl Session {
    pub(crate) async fn order(&self, order: Order) {
        let response = SessionResponse { term: self.term, order: Some(order) };
        self.orders.send(Ok(response)).await.unwrap();
    }

    pub(crate) async fn acknowledge(&self, sequence: u64) {
        self.order(Order::Acknowledge(Acknowledge { sequence })).await;
    }

    pub(crate) async fn refuse(&self, fence: Option<Fence>, reason: RefusalReason) {
        let message = "the test says so".to_owned();
        self.order(Order::Refused(Refused { fence, reason: reason.into(), message })).await;
    }

    pub(crate) async fn hello(&mut self) -> Hello {
        match self.next().await {
            Some((_, Report::Hello(hello))) => hello,
            other => panic!("{other:?} came before hello"),
        }
    }

    /// The next report of any kind; none if the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<(u64, Report)> {
        let next = tokio::time::timeout(PATIENCE, self.reports.message()).await;
        let SessionRequest { sequence, report } = next.expect("no report comes").ok()??;
        Some((sequence, report.expect("a report")))
    }

    /// The next report that is neither a heartbeat nor progress.
    pub(crate) async fn matter(&mut self) -> (u64, Report) {
        loop {
            match self.next().await.expect("the stream has ended") {
                (_, Report::Heartbeat(_) | Report::Progress(_)) => (),
                report => return report,
            }
        }
    }
}
