//! Why a call fails: what the workers can tell.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::Handle;
use super::mail::Mail;
use super::outbox::Lost;
use super::worker::{PAGE, Worker};
use crate::metrics::SocketError;
use crate::turn::{Account, Accounts, Holder, Now, Question, Reach, Rebuff, Rule, SendFailure};

/// What a worker is asked.
pub(super) enum Inquiry {
    /// The accounts of some of your sessions, from a place on.
    Accounts {
        question: Arc<Question>,
        from: usize,
        to: oneshot::Sender<Accounts>,
    },
    /// The accounts of sessions that have ended, and who was refused.
    Past {
        question: Arc<Question>,
        to: oneshot::Sender<Past>,
    },
    /// What closes a peer.
    Rule {
        peer: SocketAddr,
        to: oneshot::Sender<(Option<Rule>, Reach)>,
    },
}

/// What a worker remembers.
type Past = (Vec<Account>, Vec<Rebuff>);

/// What all workers know of what was asked.
#[derive(Debug, Default)]
pub struct Answers {
    /// Sessions that live.
    pub live: Vec<Account>,
    /// Sessions that have ended lately, the latest first.
    pub ended: Vec<Account>,
    /// Who was refused lately, the latest first.
    pub refused: Vec<Rebuff>,
    /// Whether there is more than was asked for, of any of these.
    pub more: bool,
}

impl Handle {
    /// What the workers know of whom a question is about: up to `most` of each kind.
    pub async fn ask(&self, question: Question, most: usize) -> Answers {
        let question = Arc::new(question);
        let mut answers = Answers::default();
        for address in &self.shared.addresses {
            let mut place = Some(0);
            while let Some(from) = place
                && answers.live.len() <= most
            {
                let (to, answer) = oneshot::channel();
                let question = Arc::clone(&question);
                let inquiry = Inquiry::Accounts { question, from, to };
                // A worker that hangs or has ended has nothing to tell, here and below.
                let Some(page) = address.ask(Mail::Ask(inquiry), answer).await else {
                    break;
                };
                answers.live.extend(page.found);
                place = page.next;
            }
            let (to, answer) = oneshot::channel();
            let question = Arc::clone(&question);
            let inquiry = Inquiry::Past { question, to };
            if let Some((ended, refused)) = address.ask(Mail::Ask(inquiry), answer).await {
                answers.ended.extend(ended);
                answers.refused.extend(refused);
            }
        }
        let Answers {
            live,
            ended,
            refused,
            more,
        } = &mut answers;
        ended.sort_by_key(|account| account.ended.map(|(_, ago)| ago));
        refused.sort_by_key(|refused| std::cmp::Reverse(refused.last));
        *more = live.len().max(ended.len()).max(refused.len()) > most;
        live.truncate(most);
        ended.truncate(most);
        refused.truncate(most);
        answers
    }

    /// What closes a peer, if anything does, and where it is seen from here. Nothing if no worker answers.
    pub async fn rule(&self, peer: SocketAddr) -> Option<(Option<Rule>, Reach)> {
        let (to, answer) = oneshot::channel();
        let first = self.shared.addresses.first()?;
        first
            .ask(Mail::Ask(Inquiry::Rule { peer, to }), answer)
            .await
    }
}

impl Worker<'_> {
    /// Answers, if whoever asked still waits.
    pub(super) fn answer_inquiry(&self, now: Now, inquiry: Inquiry) {
        match inquiry {
            Inquiry::Accounts { question, from, to } => {
                let which = |holder: &Holder<'_>| question.fits(holder);
                let accounts = self.server.accounts(now, from, PAGE, which, question.peer);
                let _ = to.send(accounts);
            }
            Inquiry::Past { question, to } => {
                let which = |holder: &Holder<'_>| question.fits(holder);
                let accounts = self.server.past_accounts(now, which, question.peer);
                let refused = self.server.refused(|one| question.fits_refused(one));
                let _ = to.send((accounts, refused));
            }
            Inquiry::Rule { peer, to } => {
                let _ = to.send(self.server.rule(peer, &self.sockets));
            }
        }
    }

    /// Tells the machine what the kernel would not send.
    #[cold]
    pub(super) fn tell_lost(&mut self, now: Now) {
        for Lost { relay, peer, error } in self.outbox.lost.drain(..) {
            let why = match error {
                SocketError::Unreachable => SendFailure::NoRoute,
                SocketError::TooBig => SendFailure::TooBig,
                SocketError::Denied => SendFailure::Forbidden,
                SocketError::NoDescriptor | SocketError::Other => SendFailure::Other,
                // Of the socket, or of another peer.
                SocketError::Full | SocketError::Refused => continue,
            };
            self.server.send_failed(now, relay, peer, why);
        }
    }
}
