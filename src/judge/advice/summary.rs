//! What the machine bears now and after the changes, in a sentence or a few.

use super::plan::Facts;
use super::remarks;
use crate::judge::bearing::{Bearing, Limit};
use crate::judge::change::Step;
use crate::model::{Origin, TcpState};
use crate::words::{count, counted, rate};

/// The sentences that fit what is wrong, the gravest first.
pub(super) fn of(facts: &Facts, steps: &[Step]) -> String {
    let unknown = facts.unknown();
    let number = steps.iter().map(|step| step.changes.len()).sum::<usize>();
    let summary = Summary {
        facts,
        below: match number {
            1 => "With the change below".to_owned(),
            number if steps.len() == 1 => format!(
                "With the {} below, which are one step",
                counted(number as u64, "change")
            ),
            number => format!("With the {} below", counted(number as u64, "change")),
        },
        after: steps.last().and_then(|step| step.after),
        destination: facts
            .destination()
            .unwrap_or_else(|| "one destination".into()),
    };
    match facts.now {
        Some(now) if now.ports == 0 => summary.without_ports(),
        Some(now) if unknown.is_empty() => summary
            .client_first(&now)
            .or_else(|| summary.unanswered(&now))
            .or_else(|| summary.held_open(&now))
            .or_else(|| summary.dropping(&now))
            .or_else(|| summary.open_connections(&now))
            .unwrap_or_else(|| summary.rate(&now)),
        _ => summary.unknown(&unknown),
    }
}

struct Summary<'a> {
    facts: &'a Facts<'a>,
    /// `With the 2 changes below`.
    below: String,
    /// What a destination bears with them; `None` where there are none, or it is unknown.
    after: Option<Bearing>,
    /// Toward whom.
    destination: String,
}

impl Summary<'_> {
    fn unknown(&self, unknown: &[&str]) -> String {
        let ports = match (self.facts.now, self.after) {
            (Some(now), Some(after)) if after.ports != now.ports => format!(
                " {} there are {} to one destination instead of {}.",
                self.below,
                counted(after.ports, "usable port"),
                count(now.ports)
            ),
            _ => String::new(),
        };
        format!(
            "How many connections/s this machine bears is not known, nor advice given that hangs \
             on it: {} could not be read.{ports}",
            unknown.join(", ")
        )
    }

    fn without_ports(&self) -> String {
        let cause = format!(
            "No port of the range is usable, so no connection can be opened: {}.",
            self.facts.what_takes_all()
        );
        match self.after.filter(|after| after.ports > 0) {
            Some(after) => format!(
                "{cause} {} there are {}: {}.",
                self.below,
                count(after.ports),
                after.toward(&self.destination)
            ),
            None => format!(
                "{cause} No wider range has any: take ports out of \
                 net.ipv4.ip_local_reserved_ports, or services to other ports."
            ),
        }
    }

    /// Where bind() hands out the ports: what helps first is in the client.
    fn client_first(&self, now: &Bearing) -> Option<String> {
        let source = self.facts.pool_of_bind()?;
        let together = match now.rate_without_reuse {
            Limit::At(limit) => format!(
                " It bears at most {} connections/s to all of them together, and no setting for \
                 TIME_WAIT helps it.",
                rate(limit)
            ),
            Limit::Unknown | Limit::Unbound => String::new(),
        };
        let cause = format!(
            "bind() hands out the ports of {}, one pool for all destinations, and {} of {} are \
             taken.{together} First set IP_BIND_ADDRESS_NO_PORT in \
             the client: then each destination has {} of its own",
            source.address,
            count(source.taken),
            count(source.usable),
            count(now.ports)
        );
        Some(match self.after.filter(|after| after.ports > now.ports) {
            Some(after) => format!("{cause}. {}, {}.", self.below, count(after.ports)),
            None => format!("{cause}."),
        })
    }

    /// Where nobody answers.
    fn unanswered(&self, now: &Bearing) -> Option<String> {
        let (flow, used) = self.facts.unanswered()?;
        Some(format!(
            "{} from {} toward {} are not answered and take {} of the {} ports: that is about the \
             server or the way to it, and no setting here helps.",
            counted(used.by_state.get(TcpState::SynSent), "attempt"),
            Origin(flow),
            flow.server(),
            count(used.countable_in_use()),
            count(now.ports)
        ))
    }

    /// Where open connections take the ports, and nobody asks about anything else.
    fn held_open(&self, now: &Bearing) -> Option<String> {
        let (flow, used, _) = self.facts.held_open()?;
        if self.facts.goal.is_some() {
            return None;
        }
        let cause = format!(
            "{} of the {} ports from {} toward {} are taken by {}, which no setting for TIME_WAIT \
             gives back.",
            count(used.countable_in_use()),
            count(now.ports),
            Origin(flow),
            flow.server(),
            remarks::states(used)
        );
        Some(match self.after.filter(|after| after.ports > now.ports) {
            Some(after) => format!(
                "{cause} {}, {} can be open to one destination at once.",
                self.below,
                counted(after.ports, "connection")
            ),
            None => format!("{cause} No setting gives more ports: more addresses do, or pools."),
        })
    }

    /// Where TIME_WAIT is dropped.
    fn dropping(&self, now: &Bearing) -> Option<String> {
        if !self.facts.drops() {
            return None;
        }
        let limit = count(self.facts.snapshot.tunables.tcp_max_tw_buckets?);
        let cause = if now.drops {
            format!(
                "TIME_WAIT beyond tcp_max_tw_buckets = {limit} is dropped, below the {} usable \
                 ports: TIME_WAIT alone never takes them all, and its protection is gone.",
                count(now.ports)
            )
        } else {
            format!(
                "TIME_WAIT is being dropped at tcp_max_tw_buckets = {limit}, and its protection \
                 with it."
            )
        };
        Some(match self.after.filter(|after| !after.drops) {
            Some(after) => format!(
                "{cause} {}, it is kept, and this machine bears {}.",
                self.below,
                after.toward(&self.destination)
            ),
            None => cause,
        })
    }

    /// Where only open connections are asked about.
    fn open_connections(&self, now: &Bearing) -> Option<String> {
        if self.facts.goal?.rate.is_some() {
            return None;
        }
        let open = format!(
            "This machine can have {} open to {} at once",
            counted(now.ports, "connection"),
            self.destination
        );
        Some(match self.after.filter(|after| after.ports > now.ports) {
            Some(after) => format!("{open}. {}, {}.", self.below, count(after.ports)),
            None => format!("{open}."),
        })
    }

    fn rate(&self, now: &Bearing) -> String {
        let bears = now.toward(&self.destination);
        match self.after {
            None => format!("This machine needs no change: it bears {bears}."),
            Some(after) if after == *now => {
                format!(
                    "This machine bears {bears}. {} it bears as much.",
                    self.below
                )
            }
            Some(after) => format!(
                "This machine bears {bears}. {}, {}{}.",
                self.below,
                after.rate,
                after.condition()
            ),
        }
    }
}
