//! Starts a worker, and starts it afresh should it panic.
//!
//! A panic in a worker is a bug. Its calls end with it: nothing of its state is shared, so nothing is
//! poisoned. Its listening sockets, its mailbox and its counters outlive it, and so does what all workers were
//! told last: new clients are served by its successor at once, by the rules in force.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use rand::{
    RngExt as _, SeedableRng as _,
    rngs::{StdRng, SysRng},
};
use tokio::net::TcpListener;
use tracing::error;

use super::Shared;
use super::dtls::Associations;
use super::listener::{Bound, Listen};
use super::mail::Mailbox;
use super::outbox::Outbox;
use super::sockets::{Listener, Sockets};
use super::stream::Streams;
use super::tcp_relay::Connections;
use super::udp::Inbox;
use super::worker::{Acceptor, Times, Worker, read_clock};
use crate::metrics::Cells;
use crate::turn::{self, NatDiscovery, Now, Server, TicketKey, WorkerId};

/// What it takes to start one worker, any number of times.
pub(super) struct Plan {
    number: usize,
    bound: Bound,
    shared: Arc<Shared>,
    /// As at the beginning: it goes with the sockets.
    discovery: Vec<NatDiscovery>,
    /// The same for all workers: nonces count from it.
    epoch: Now,
    streams: usize,
}

/// How a worker ended.
enum Ending {
    /// It was told to.
    Told,
    Panic,
}

/// A plan for each worker.
pub(super) fn plans(
    bound: Vec<Bound>,
    shared: &Arc<Shared>,
    machine: &turn::Settings,
    streams: usize,
) -> Vec<Plan> {
    let epoch = read_clock();
    let plan = |(number, bound)| Plan {
        number,
        bound,
        shared: Arc::clone(shared),
        discovery: machine.nat_discovery.clone(),
        epoch,
        streams,
    };
    bound.into_iter().enumerate().map(plan).collect()
}

/// A key that nobody else has.
pub(super) fn ticket_key() -> io::Result<TicketKey> {
    let mut random = StdRng::try_from_rng(&mut SysRng).map_err(io::Error::other)?;
    Ok(TicketKey(random.random()))
}

impl Plan {
    /// Starts the thread.
    pub(super) fn spawn(self, mailbox: Mailbox) -> io::Result<JoinHandle<()>> {
        let name = format!("worker-{}", self.number);
        thread::Builder::new()
            .name(name)
            .spawn(move || self.supervise(mailbox))
    }

    fn supervise(self, mut mailbox: Mailbox) {
        let mut cells = Cells::default();
        loop {
            let run = catch_unwind(AssertUnwindSafe(|| self.run(&mut mailbox, &mut cells)));
            match run {
                Ok(Ok(Ending::Told)) => return,
                Ok(Err(error)) => {
                    error!(worker = self.number, %error, "worker cannot start");
                    return;
                }
                Ok(Ok(Ending::Panic)) | Err(_) => {
                    cells.restarts += 1;
                    error!(
                        worker = self.number,
                        "worker panicked, its calls are lost; starting it afresh"
                    );
                }
            }
        }
    }

    fn run(&self, mailbox: &mut Mailbox, cells: &mut Cells) -> io::Result<Ending> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut worker = runtime.block_on(async { self.build(cells) })?;
        let serve = || runtime.block_on(worker.run(mailbox));
        if catch_unwind(AssertUnwindSafe(serve)).is_ok() {
            return Ok(Ending::Told);
        }
        // Whoever keeps books of calls must hear of their ends. What the panic has left half done may cause another one.
        let _within = runtime.enter();
        let _ = catch_unwind(AssertUnwindSafe(|| worker.close_books()));
        Ok(Ending::Panic)
    }

    fn build<'a>(&self, cells: &'a mut Cells) -> io::Result<Worker<'a>> {
        let Bound { udp, tcp } = self.bound.try_clone()?;
        let listener = |(socket, listen): (_, Arc<Listen>)| Listener {
            socket,
            address: listen.address,
            transport: listen.transport,
        };
        let listeners: Vec<_> = udp.into_iter().map(listener).collect();
        let mut acceptors = Vec::new();
        for (socket, listen) in tcp {
            let socket = TcpListener::from_std(socket.into())?;
            acceptors.push(Acceptor { socket, listen });
        }
        let mut random = StdRng::try_from_rng(&mut SysRng).map_err(io::Error::other)?;
        let first_stream = u32::try_from(listeners.len()).map_err(io::Error::other)?;
        Ok(Worker {
            number: self.number,
            server: self.server(random.random())?,
            sockets: Sockets::new(
                self.number,
                listeners,
                Connections::new(self.streams),
                Arc::clone(&self.shared),
                random.random(),
            )?,
            acceptors,
            turn: 0,
            streams: Streams::new(first_stream, self.streams),
            associations: Associations::new(
                self.streams,
                Arc::clone(&self.shared.dtls),
                &self.shared.cookie_seed,
                self.epoch.instant,
            ),
            shared: Arc::clone(&self.shared),
            cells,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            ready: Vec::new(),
            times: Times::starting(self.epoch.instant),
        })
    }

    /// A machine that knows what all have been told.
    fn server(&self, seed: [u8; 32]) -> io::Result<Server> {
        let number = WorkerId(u16::try_from(self.number).map_err(io::Error::other)?);
        let last_word = &self.shared.last_word;
        let mut settings = last_word.machine.load_full();
        if settings.nat_discovery != self.discovery {
            Arc::make_mut(&mut settings)
                .nat_discovery
                .clone_from(&self.discovery);
        }
        let quotas = Arc::clone(&self.shared.quotas);
        let server = Server::new(settings, quotas, seed, self.epoch);
        let mut server = server.among(number, &self.shared.ticket_key);
        server.replace_revocations(last_word.revocations.load_full());
        server.drain(last_word.draining.load(Ordering::Relaxed));
        Ok(server)
    }
}
