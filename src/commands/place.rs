//! Where a command looks: here, into another network namespace, or into all of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

use crate::cli::{PlaceArgs, SourceArgs};
use crate::judge::namespaces::{Judged, Looked, Namespaces, namespaces};
use crate::model::{Destination, HostName, Namespace, Toward};
use crate::refusal::Refusal;
use crate::render;
use crate::system::{Door, Found, Machine, SourceChoice, census, is_made_up, resolve};

/// Namespaces looked into at once: a look waits longer than it works, and a node has other work.
const AT_ONCE: usize = 4;

/// Looks at the one machine or namespace that is asked for, and says into which namespace of it.
///
/// # Errors
/// When there is no such recording, namespace or destination, or `look` fails.
pub fn one<T: Send>(
    args: &SourceArgs,
    destination: Option<&Destination>,
    look: impl FnOnce(&Machine, Option<Toward>) -> Result<T> + Send,
) -> Result<(T, Option<Namespace>)> {
    let Some(recorded) = args.recording()? else {
        return here(&args.place, destination, look);
    };
    if let Some(taken) = recorded.taken {
        let time = humantime::format_rfc3339_seconds(taken);
        render::note(&format!("this is how it was at {time}"));
    }
    let resolve = |asked: &Destination| resolve_recorded(asked, recorded.is_scrubbed);
    let toward = destination.map(resolve).transpose()?;
    Ok((look(&recorded.machine, toward)?, recorded.namespace))
}

/// Looks a destination up for a recording, in which a real address is no longer found once it is
/// scrubbed.
fn resolve_recorded(asked: &Destination, is_scrubbed: bool) -> Result<Toward> {
    let toward = resolve(asked)?;
    let mut real = toward.addresses.iter().filter(|it| !is_made_up(it.ip()));
    if let Some(real) = real.next().filter(|_| is_scrubbed) {
        return Err(Refusal::new(
            format!(
                "{} is not in this recording: its addresses are scrubbed, others stand in place of \
                 the real ones",
                real.ip()
            ),
            "`twcheck states --by flow --from` it names them; or ask for the port alone, as :3306",
        )
        .into());
    }
    Ok(toward)
}

/// Looks at the one machine or namespace that is asked for, once for several destinations: each comes
/// as what was found of it, `None` where none is asked for.
///
/// # Errors
/// When there is no such recording or namespace, or `look` fails.
pub fn one_for_each<T: Send>(
    args: &SourceArgs,
    asked: &[Option<Destination>],
    look: impl FnOnce(&Machine, Vec<Result<Option<Toward>>>) -> Result<T> + Send,
) -> Result<T> {
    let resolved = |resolve: &dyn Fn(&Destination) -> Result<Toward>| {
        let each = asked.iter().map(|asked| asked.as_ref().map(resolve));
        each.map(Option::transpose).collect()
    };
    if let Some(recorded) = args.recording()? {
        let resolve = |asked: &Destination| resolve_recorded(asked, recorded.is_scrubbed);
        return look(&recorded.machine, resolved(&resolve));
    }
    let Some(wanted) = args.place.wanted() else {
        return look(&Machine::live(args.place.source), resolved(&resolve));
    };
    let door = Door::find(&wanted)?;
    door.look(args.place.source, |machine| {
        look(machine, resolved(&|asked| door.resolve(asked)))
    })?
}

/// Looks into this network namespace, or into the one that is asked for. The destination is looked up
/// where it is used.
///
/// # Errors
/// When there is no such namespace or destination, or `look` fails.
pub fn here<T: Send>(
    args: &PlaceArgs,
    destination: Option<&Destination>,
    look: impl FnOnce(&Machine, Option<Toward>) -> Result<T> + Send,
) -> Result<(T, Option<Namespace>)> {
    let post = Post::take(args, destination)?;
    let found = post.look(look)?;
    Ok((found, post.door.map(|door| door.namespace)))
}

/// A place from which to look, as often as one likes.
#[derive(Debug)]
pub struct Post {
    source: SourceChoice,
    /// Into another network namespace; `None` for this one.
    door: Option<Door>,
    toward: Option<Toward>,
}

impl Post {
    /// Finds the namespace that is asked for, and looks the destination up where it is used.
    ///
    /// # Errors
    /// When there is no such namespace or destination.
    pub fn take(args: &PlaceArgs, destination: Option<&Destination>) -> Result<Self> {
        let door = args
            .wanted()
            .map(|wanted| Door::find(&wanted))
            .transpose()?;
        let toward = match (&door, destination) {
            (_, None) => None,
            (None, Some(asked)) => Some(resolve(asked)?),
            (Some(door), Some(asked)) => Some(door.look(args.source, |_| door.resolve(asked))??),
        };
        Ok(Self {
            source: args.source,
            door,
            toward,
        })
    }

    /// The other namespace; `None` where it is this one.
    pub fn namespace(&self) -> Option<&Namespace> {
        self.door.as_ref().map(|door| &door.namespace)
    }

    /// Looks from there.
    ///
    /// # Errors
    /// When the process that was asked for has ended, or `look` fails.
    pub fn look<T: Send>(
        &self,
        look: impl FnOnce(&Machine, Option<Toward>) -> Result<T> + Send,
    ) -> Result<T> {
        let toward = self.toward.clone();
        let Some(door) = &self.door else {
            return look(&Machine::live(self.source), toward);
        };
        // What it leaves is held open here, and empty.
        if !door.has_its_process() {
            return Err(Refusal::new(
                format!("{}: it has ended", door.namespace.option),
                "`ps -e` lists processes, `lsns -t net` one of each network namespace",
            )
            .into());
        }
        door.look(self.source, |machine| look(machine, toward))?
    }
}

/// Looks into all network namespaces of this machine. A name is looked up once.
///
/// # Errors
/// When it has no address.
pub fn all<R: Judged + Send>(
    args: &SourceArgs,
    destination: Option<&Destination>,
    look: impl Fn(&Machine, Option<Toward>) -> Result<R> + Sync,
) -> Result<Namespaces<R>> {
    let toward = match destination {
        // An interface has another number in each.
        Some(asked) if matches!(asked.host, Some(HostName::Scoped(..))) => None,
        asked => asked.map(resolve).transpose()?,
    };
    let look = |machine: &Machine| {
        let toward = toward
            .clone()
            .map_or_else(|| destination.map(resolve).transpose(), |it| Ok(Some(it)));
        look(machine, toward?)
    };
    let census = census();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(census.found.len()) {
            scope.spawn(|| {
                while let Some(found) = census.found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let looked = look_into(found, args.place.source, &look);
                    done.lock().expect("no look panics").push(looked);
                }
            });
        }
    });
    let looked = done.into_inner().expect("no look panics");
    Ok(namespaces(looked, census.gaps))
}

fn look_into<R: Judged + Send>(
    found: &Found,
    source: SourceChoice,
    look: &(impl Fn(&Machine) -> Result<R> + Sync),
) -> Looked<R> {
    let namespace = found.namespace.clone();
    let told = |why: String, is_gone| Looked {
        namespace: namespace.clone(),
        report: None,
        why: Some(why),
        is_gone,
    };
    let gone = || told("it ended while this was looked at".into(), true);
    let door = match Door::open(found) {
        Ok(Some(door)) => door,
        Ok(None) => return gone(),
        Err(error) => return told(format!("{error:#}"), false),
    };
    match door.look(source, look).and_then(|report| report) {
        Ok(mut report) => {
            report.settle_in(namespace.clone());
            Looked {
                namespace,
                report: Some(report),
                why: None,
                is_gone: false,
            }
        }
        // Only what is held open stays.
        Err(_) if !door.is_there() => gone(),
        Err(error) => told(format!("{error:#}"), false),
    }
}
