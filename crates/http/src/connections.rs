//! The open connections of the monitor, with a limit on their number.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    time::Duration,
};

use diagnostics::message::{Code, LogMessage};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep},
};

use crate::log;

/// Maximum number of connections.
const MAX_CONNECTIONS: usize = 256;

/// How long a client may take to send a request. While there is room, it has
/// [`crate::server::HEADER_TIMEOUT`].
const HEAD_WAIT: Duration = Duration::from_millis(100);

/// How long a new connection waits for room, if the requests of all others are complete.
const ROOM_WAIT: Duration = Duration::from_millis(500);

/// Time between two log messages about cut connections.
const MESSAGE_INTERVAL: Duration = Duration::from_secs(3600);

/// Has the request of a connection arrived?
pub(crate) type HasRequest = Rc<Cell<bool>>;

struct Connection {
    task: AbortHandle,
    accepted: Instant,
    has_request: HasRequest,
}

/// The connections that are being served, the oldest first.
#[derive(Default)]
pub(crate) struct Connections {
    open: RefCell<VecDeque<Connection>>,
    logged: Cell<Option<Instant>>,
}

impl Connections {
    /// Adds a connection that was just accepted.
    pub(crate) fn add(&self, task: AbortHandle, has_request: HasRequest) {
        let accepted = Instant::now();
        self.open.borrow_mut().push_back(Connection { task, accepted, has_request });
    }

    /// Waits until another connection may be served. Clients that send no request must not keep out
    /// those that do: their connections are cut first.
    pub(crate) async fn make_room(&self) {
        let due = Instant::now() + ROOM_WAIT;
        while self.is_full() {
            if self.cut_incomplete() {
                self.report();
            } else if Instant::now() >= due {
                self.cut(0);
            } else {
                sleep(Duration::from_millis(5)).await;
            }
        }
    }

    fn is_full(&self) -> bool {
        let mut open = self.open.borrow_mut();
        open.retain(|connection| !connection.task.is_finished());
        open.len() >= MAX_CONNECTIONS
    }

    /// Cuts the oldest connection without a request, if that had its time.
    fn cut_incomplete(&self) -> bool {
        let oldest = self.open.borrow().iter().position(|connection| {
            !connection.has_request.get() && connection.accepted.elapsed() >= HEAD_WAIT
        });
        oldest.is_some_and(|oldest| self.cut(oldest))
    }

    fn cut(&self, index: usize) -> bool {
        let connection = self.open.borrow_mut().remove(index);
        connection.is_some_and(|connection| {
            connection.task.abort();
            true
        })
    }

    fn report(&self) {
        if self.logged.get().is_some_and(|last| last.elapsed() < MESSAGE_INTERVAL) {
            return;
        }
        self.logged.set(Some(Instant::now()));
        let message = format!(
            "{MAX_CONNECTIONS} connections are open, the maximum: cutting the oldest that have \
             sent no complete request within {} ms; not logged again for an hour",
            HEAD_WAIT.as_millis()
        );
        log(&LogMessage::new(Code::MonitorBusy, message).hint(
            "see with `ss -tnp` or `ss -xp` which clients connect without sending a request, and \
             close the address to them",
        ));
    }
}
