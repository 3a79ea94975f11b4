//! Where a command looks: here, into another network namespace, or into all of them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Result;

use crate::cli::SourceArgs;
use crate::judge::namespaces::{Judged, Looked, Namespaces, namespaces};
use crate::model::Namespace;
use crate::system::{Door, Found, Machine, SourceChoice, census};

/// Namespaces looked into at once: a look waits longer than it works, and a node has other work.
const AT_ONCE: usize = 4;

/// Looks here, or into the one namespace that is asked for, and says into which.
///
/// # Errors
/// When there is no such namespace, or `look` fails.
pub fn one<T: Send>(
    args: &SourceArgs,
    look: impl FnOnce(&Machine) -> Result<T> + Send,
) -> Result<(T, Option<Namespace>)> {
    let Some(wanted) = args.wanted() else {
        return Ok((look(&args.machine())?, None));
    };
    let door = Door::find(&wanted)?;
    let found = door.look(args.source(), look)??;
    Ok((found, Some(door.namespace)))
}

/// Looks into all network namespaces of this machine.
///
/// # Errors
/// When none can be looked at for want of threads.
pub fn all<R: Judged + Send>(
    args: &SourceArgs,
    look: impl Fn(&Machine) -> Result<R> + Sync,
) -> Namespaces<R> {
    let census = census();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(census.found.len()) {
            scope.spawn(|| {
                while let Some(found) = census.found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let looked = look_into(found, args.source(), &look);
                    done.lock().expect("no look panics").push(looked);
                }
            });
        }
    });
    namespaces(done.into_inner().expect("no look panics"), census.gaps)
}

fn look_into<R: Send>(
    found: &Found,
    source: SourceChoice,
    look: &(impl Fn(&Machine) -> Result<R> + Sync),
) -> Looked<R> {
    let namespace = found.namespace.clone();
    let gone = |namespace| Looked {
        namespace,
        report: None,
        why: Some("it ended while this was looked at".into()),
        is_gone: true,
    };
    let Some(door) = Door::open(found) else {
        return gone(namespace);
    };
    match door.look(source, look).and_then(|report| report) {
        Ok(report) => Looked {
            namespace,
            report: Some(report),
            why: None,
            is_gone: false,
        },
        // Only what is held open stays.
        Err(_) if !door.is_there() => gone(namespace),
        Err(error) => Looked {
            namespace,
            report: None,
            why: Some(format!("{error:#}")),
            is_gone: false,
        },
    }
}
