//! Opens what `--from` names: a folder, an archive, a sosreport, or a text of ss or netstat.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use memchr::memmem;
use rustix::fs::{PROC_SUPER_MAGIC, statfs};
use tar::EntryType;

use super::answers::{self, Answers, MOST_SOCKETS, Taken, VERSION, sockets};
use super::listing::{Listing, Program};
use super::{ANSWERS, Archive, FILES, SCRUBBED, SOCKETS, TRACKED};
use crate::model::{Flow, Gap, Namespace, PortRange, Socket, SourceName, TcpState, Weight};
use crate::refusal::Refusal;
use crate::system::{Machine, ProcRoot, file};
use crate::words::{count, counted, printable};

/// Entries looked at in an archive: a sosreport has some 10,000.
const MOST_ENTRIES: usize = 200_000;

/// More than the answers of a machine take.
const LONGEST_ANSWERS: u64 = 16 * 1024 * 1024;

/// More than the name of a file takes, or what pax says of one.
const LONGEST_NAME: u64 = 64 * 1024;

/// In seconds since 1970.
const YEAR_10000: u64 = 253_402_300_800;

/// What ss and netstat printed, in a sosreport, and what it says of settings.
const NETWORKING: &str = "sos_commands/networking";
const SYSCTL: &str = "sos_commands/kernel/sysctl_-a";

/// A machine that was recorded.
#[derive(Debug)]
pub struct Recorded {
    /// The machine.
    pub machine: Machine,
    /// The network namespace of it that was asked for then.
    pub namespace: Option<Namespace>,
    /// When it was recorded; `None` where that is not told.
    pub taken: Option<SystemTime>,
    /// Whether its addresses and names are others in place of the real ones.
    pub is_scrubbed: bool,
}

/// Opens the recording at `path`.
///
/// # Errors
/// Where it is none: the error says what is wrong with it, and what is read.
pub fn open(path: &Path) -> Result<Recorded> {
    let refused = |why: String| {
        Refusal::new(
            printable(&format!("--from {}: {why}", path.display())),
            "it takes a folder or a .tar file of `twcheck record`, a copy of /proc, a sosreport's \
             folder, or what `ss -tanoe` or `netstat -anto` printed",
        )
    };
    let opened = match fs::metadata(path) {
        Ok(it) if it.is_dir() => folder(path),
        Ok(it) if it.is_file() => named_file(path),
        Ok(_) => Err(anyhow::anyhow!("it is neither a folder nor a regular file")),
        Err(error) => Err(error.into()),
    };
    opened.map_err(|error| match error.downcast::<Refusal>() {
        Ok(refusal) => refusal.into(),
        Err(error) => refused(format!("{error:#}")).into(),
    })
}

/// Files by what they are, wherever they lie.
#[derive(Debug, Default)]
struct Contents {
    files: Archive,
    answers: Option<Vec<u8>>,
    sockets: Option<Vec<Socket>>,
    printed: Vec<(PathBuf, Listing)>,
    settings: Vec<(String, String)>,
    is_scrubbed: bool,
}

fn folder(path: &Path) -> Result<Recorded> {
    let is_there = |name: &str| path.join(name).exists();
    let proc = if is_there("proc") && !is_there("net/tcp") {
        path.join("proc")
    } else {
        path.to_owned()
    };
    if statfs(&proc).is_ok_and(|it| it.f_type == PROC_SUPER_MAGIC) {
        return Err(Refusal::new(
            format!(
                "--from {}: it is the /proc of a running kernel, and a recording is a copy",
                path.display()
            ),
            "leave --from out to look at this machine; --pid PID looks at a container, --proc-root DIR \
             at a /proc that is mounted elsewhere",
        )
        .into());
    }
    let mut contents = Contents::default();
    for name in [SOCKETS, ANSWERS, SCRUBBED] {
        if let Some(file) = there(&path.join(name))? {
            contents.put(Path::new(name), file)?;
        }
    }
    let mut reports: Vec<PathBuf> = fs::read_dir(path.join(NETWORKING))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    reports.sort();
    reports.push(path.join(SYSCTL));
    for report in reports {
        let name = report.strip_prefix(path).unwrap_or(&report);
        if is_of_interest(name).is_some()
            && let Some(file) = there(&report)?
        {
            contents.put(name, file)?;
        }
    }
    let has_table = proc.join("net/tcp").exists() || proc.join("sys/net").exists();
    contents.machine(path, &proc, has_table, false)
}

fn there(path: &Path) -> Result<Option<File>> {
    match file::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn named_file(path: &Path) -> Result<Recorded> {
    let mut file = file::open(path)?;
    let mut beginning = [0; 512];
    let length = read_some(&mut file, &mut beginning)?;
    file.seek(SeekFrom::Start(0))?;
    let beginning = &beginning[..length];
    for (magic, how) in [
        (&b"\x1f\x8b"[..], "gzip"),
        (b"\xfd7zXZ", "xz"),
        (b"BZh", "bzip2"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
    ] {
        if beginning.starts_with(magic) {
            anyhow::bail!("it is compressed with {how}: unpack it (`tar -xf`) and name the folder");
        }
    }
    if beginning.get(257..262) == Some(b"ustar") {
        return archive(path, file);
    }
    let listing = Listing::read(&file)?;
    if listing.is_empty {
        anyhow::bail!("it is empty");
    }
    let mut contents = Contents::default();
    if listing.is_proc_table && listing.program.is_none() {
        // A table of /proc as it was copied.
        file.seek(SeekFrom::Start(0))?;
        contents.files.keep(Path::new("net/tcp"), &mut file)?;
        contents.keep_settings(&listing.settings, None)?;
        return contents.machine(path, path, true, true);
    }
    contents.settings.clone_from(&listing.settings);
    contents.printed.push((path.to_owned(), listing));
    contents.machine(path, path, false, true)
}

fn read_some(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..])? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// What a path in a recording names: the folder that the recording is in there, and the name from
/// there on.
fn is_of_interest(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let components: Vec<_> = path.components().collect();
    for start in 0..components.len() {
        let name: PathBuf = components[start..].iter().collect();
        let folder = || components[..start].iter().collect::<PathBuf>();
        let text = name.to_str()?;
        let of_proc = text.strip_prefix("proc/").unwrap_or(text);
        if FILES.contains(&of_proc) || TRACKED.contains(&of_proc) {
            return Some((folder(), of_proc.into()));
        }
        let report = name.strip_prefix(NETWORKING).ok().and_then(Path::to_str);
        let is_report = report.is_some_and(|it| {
            !it.contains('/') && (it.starts_with("ss_") || it.starts_with("netstat_"))
        });
        if is_report || [SOCKETS, ANSWERS, SCRUBBED, SYSCTL].contains(&text) {
            return Some((folder(), name));
        }
    }
    None
}

/// Reads an archive as it comes, and writes nothing anywhere.
fn archive(path: &Path, mut file: File) -> Result<Recorded> {
    /// Two blocks of zeros end an archive.
    const END: u16 = 1024;
    let length = file.metadata()?.len();
    let mut end = vec![1; END.into()];
    if length >= END.into() {
        file.seek(SeekFrom::End(-i64::from(END)))?;
        read_some(&mut file, &mut end)?;
        file.seek(SeekFrom::Start(0))?;
    }
    if end.iter().any(|&byte| byte != 0) {
        anyhow::bail!("the archive is cut off: it has no end");
    }
    check_entries(&mut file)?;
    file.seek(SeekFrom::Start(0))?;
    let mut archive = tar::Archive::new(file);
    let mut contents = Contents::default();
    let mut root: Option<PathBuf> = None;
    let mut has_table = false;
    // What is of no interest is passed over, however long it is.
    let entries = archive.entries_with_seek().context("reading the archive")?;
    for entry in entries {
        let mut entry = entry.context("the archive is damaged")?;
        let name = entry.path().context("the archive is damaged")?.into_owned();
        let shown = printable(&name.to_string_lossy());
        let is_inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !name.components().all(is_inside) {
            anyhow::bail!("its entry {shown} leads out of it");
        }
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Directory => continue,
            EntryType::Symlink | EntryType::Link => anyhow::bail!("its entry {shown} is a link"),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                anyhow::bail!("its entry {shown} is a device")
            }
            _ => anyhow::bail!("its entry {shown} is no plain file"),
        }
        let name: PathBuf = name
            .components()
            .filter(|part| *part != Component::CurDir)
            .collect();
        let Some((folder, name)) = is_of_interest(&name) else {
            continue;
        };
        if *root.get_or_insert_with(|| folder.clone()) != folder {
            anyhow::bail!(
                "it has recordings of several machines, in {} and {}: unpack it, and name one",
                root.unwrap_or_default().display(),
                folder.display()
            );
        }
        has_table |= name.starts_with("net") || name.starts_with("sys");
        let size = entry.size();
        let read = contents
            .put(&name, &mut entry)
            .with_context(|| format!("its entry {shown}"))?;
        if read.is_some_and(|read| read != size) {
            anyhow::bail!("the archive is cut off within {shown}");
        }
    }
    contents.machine(path, &path.join("proc"), has_table, true)
}

/// Looks at the entries as they are, before their names and holes are made sense of, which takes as
/// much memory as they say.
fn check_entries(file: &mut File) -> Result<()> {
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries_with_seek().context("reading the archive")?;
    for (number, entry) in entries.raw(true).enumerate() {
        if number == MOST_ENTRIES {
            anyhow::bail!("it has more than {MOST_ENTRIES} entries, and no recording has");
        }
        let mut entry = entry.context("the archive is damaged")?;
        let kind = entry.header().entry_type();
        if kind.is_gnu_sparse() {
            anyhow::bail!("it has a file with holes, and no recording has");
        }
        let is_of_pax = kind.is_pax_local_extensions() || kind.is_pax_global_extensions();
        if !is_of_pax && !kind.is_gnu_longname() && !kind.is_gnu_longlink() {
            continue;
        }
        if entry.size() > LONGEST_NAME {
            anyhow::bail!("it has a name that is longer than 64 KiB");
        }
        let mut said = Vec::new();
        entry
            .read_to_end(&mut said)
            .context("the archive is damaged")?;
        let says = |key: &[u8]| memmem::find(&said, key).is_some();
        if is_of_pax && (says(b" size=") || says(b" GNU.sparse.")) {
            anyhow::bail!("it has a file of more than 8 GiB or with holes, and no recording has");
        }
    }
    Ok(())
}

impl Contents {
    /// Keeps what is called `name`; how long it was, where it is read to its end.
    fn put(&mut self, name: &Path, mut from: impl Read) -> Result<Option<u64>> {
        let text = name.to_str().unwrap_or_default();
        match text {
            ANSWERS => {
                let mut bytes = Vec::new();
                from.take(LONGEST_ANSWERS + 1).read_to_end(&mut bytes)?;
                if bytes.len() as u64 > LONGEST_ANSWERS {
                    anyhow::bail!("it is longer than 16 MiB");
                }
                let length = bytes.len() as u64;
                self.answers = Some(bytes);
                return Ok(Some(length));
            }
            SOCKETS => {
                self.sockets = Some(sockets(from).with_context(|| SOCKETS)?);
            }
            SCRUBBED => self.is_scrubbed = true,
            SYSCTL => self.settings = Listing::read(from)?.settings,
            _ if name.starts_with(NETWORKING) => {
                // Others of its reports are of other commands.
                let listing = Listing::read(from)?;
                self.printed.push((name.to_owned(), listing));
                let all = self.printed.iter().map(|(_, it)| it.sockets.len());
                if all.sum::<usize>() > MOST_SOCKETS {
                    anyhow::bail!("it has more sockets than any machine");
                }
            }
            _ => return Ok(Some(self.files.keep(name, &mut from)?)),
        }
        Ok(None)
    }

    /// Keeps settings as the files that they are in /proc, where they are not there.
    fn keep_settings(
        &mut self,
        settings: &[(String, String)],
        folder: Option<&Path>,
    ) -> Result<()> {
        for (key, value) in settings {
            let path = PathBuf::from(format!("sys/{}", key.replace('.', "/")));
            let is_read = path.to_str().is_some_and(|it| FILES.contains(&it));
            let is_there = folder.is_some_and(|folder| folder.join(&path).exists());
            if is_read && !is_there && !self.files.has(&path) {
                let text = format!("{value}\n");
                self.files.keep(&path, &mut text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The machine that all this is of.
    fn machine(
        mut self,
        path: &Path,
        proc: &Path,
        has_table: bool,
        is_archive: bool,
    ) -> Result<Recorded> {
        let (settings, disputed) = agreed(std::mem::take(&mut self.settings));
        self.keep_settings(&settings, Some(proc).filter(|_| !is_archive))?;
        let taken = self.taken()?;
        let namespace = taken.as_ref().and_then(|taken| {
            let option = taken.answers.option.clone();
            let namespace = taken.answers.namespace.clone()?;
            Some(Namespace {
                option,
                ..namespace
            })
        });
        let has_rows = taken.is_some();
        let is_in_proc = self.files.has(Path::new("net/tcp")) || proc.join("net/tcp").exists();
        if has_rows || is_in_proc {
            let seconds = taken.as_ref().map(|taken| taken.answers.taken);
            // No calendar has more than four digits for a year.
            let seconds = seconds.filter(|seconds| *seconds < YEAR_10000);
            let proc = ProcRoot::archived(proc.to_owned(), self.files, is_archive);
            return Ok(Recorded {
                machine: Machine::taken(proc, taken),
                namespace,
                taken: seconds.map(|it| SystemTime::UNIX_EPOCH + Duration::from_secs(it)),
                is_scrubbed: self.is_scrubbed,
            });
        }
        self.printed
            .retain(|(_, it)| it.program.is_some() || it.is_foreign);
        // What is whole comes first; with timers either tells more, and ss more than netstat.
        self.printed.sort_by_key(|(_, it)| {
            (
                it.sockets.is_empty(),
                it.doubt().is_some(),
                it.malformed + it.stateless > 0 || it.cut_off.is_some(),
                it.untimed() > 0,
                it.program != Some(Program::Ss),
            )
        });
        if self.printed.is_empty() {
            anyhow::bail!(if has_table {
                "it has no net/tcp, and nothing that ss or netstat printed"
            } else if path.is_dir() || is_archive && proc != path {
                "it is no recording: it has neither net/tcp nor anything that ss or netstat printed"
            } else {
                "it is neither an archive nor a text of ss or netstat"
            });
        }
        let (place, listing) = self.printed.swap_remove(0);
        let mut taken = printed(&place, listing, &settings)?;
        taken
            .answers
            .gaps
            .extend(disputed.into_iter().map(Into::into));
        let proc = if is_archive {
            ProcRoot::printed(proc.to_owned(), self.files)
        } else {
            ProcRoot::archived(proc.to_owned(), self.files, false)
        };
        Ok(Recorded {
            machine: Machine::taken(proc, Some(taken)),
            namespace: None,
            taken: None,
            is_scrubbed: self.is_scrubbed,
        })
    }

    fn taken(&mut self) -> Result<Option<Taken>> {
        let (answers, rows) = match (self.answers.take(), self.sockets.take()) {
            (Some(answers), Some(rows)) => (answers, rows),
            (None, None) => return Ok(None),
            (Some(_), None) => anyhow::bail!("it has {ANSWERS}, and {SOCKETS} is missing"),
            (None, Some(_)) => anyhow::bail!("it has {SOCKETS}, and {ANSWERS} is missing"),
        };
        let answers = answers::answers(&answers).context(ANSWERS)?;
        if answers.version != VERSION {
            anyhow::bail!(
                "it was made by another version of twcheck (recording {}, and this one reads {VERSION})",
                answers.version
            );
        }
        Ok(Some(Taken {
            rows,
            answers,
            source: SourceName::SockDiag,
        }))
    }
}

/// Settings without those that are told in two ways, as before and after a change: which of them held
/// is unknown.
fn agreed(settings: Vec<(String, String)>) -> (Vec<(String, String)>, Vec<Gap>) {
    let words = |text: &str| {
        text.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let mut told: BTreeMap<String, (String, bool)> = BTreeMap::new();
    for (key, value) in settings {
        match told.get_mut(&key) {
            Some((first, is_disputed)) => *is_disputed |= words(first) != words(&value),
            None => {
                told.insert(key, (value, false));
            }
        }
    }
    let (disputed, agreed): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|(_, (_, is_disputed))| *is_disputed);
    let gap = |(key, _)| Gap {
        what: key,
        why: "it is told more than once and in different ways, so which of them held is unknown"
            .into(),
        weight: Weight::Minor,
    };
    let agreed = agreed.into_iter().map(|(key, (value, _))| (key, value));
    (agreed.collect(), disputed.into_iter().map(gap).collect())
}

/// The table that ss or netstat printed, and what it does not tell.
fn printed(path: &Path, listing: Listing, settings: &[(String, String)]) -> Result<Taken> {
    let program = listing.program.map_or("ss", Program::name);
    if listing.sockets.is_empty() && listing.named > 0 {
        anyhow::bail!("it has names instead of numbers: `{program} -n` prints numbers");
    }
    if listing.is_foreign {
        anyhow::bail!(
            "it is of netstat of another system (BSD, macOS, Solaris, Windows), whose ports and \
             TIME_WAIT have other rules than those of Linux"
        );
    }
    let name = printable(&path.display().to_string());
    let gaps = gaps(&name, program, &listing, settings);
    Ok(Taken {
        rows: listing.sockets,
        answers: Answers {
            version: VERSION,
            gaps: gaps.into_iter().map(Into::into).collect(),
            ..Answers::default()
        },
        source: SourceName::Text,
    })
}

fn gaps(name: &str, program: &str, listing: &Listing, settings: &[(String, String)]) -> Vec<Gap> {
    let rows = missing_rows(listing).map(|why| ("rows", why, Weight::Decisive));
    let double = double_rows(listing).map(|why| ("rows", why, Weight::Minor));
    let others = missing_columns(listing, settings);
    let all = rows.chain(double).chain(others);
    all.map(|(what, why, weight)| Gap {
        what: format!("{what} of {name}, which {program} printed"),
        why,
        weight,
    })
    .collect()
}

/// Why sockets that take ports may be missing.
fn missing_rows(listing: &Listing) -> impl Iterator<Item = String> {
    let stateless = (listing.stateless > 0).then(|| {
        format!(
            "{} without a state left out, which ss does not print where one was asked for: \
             `ss -tanoe` lists every socket with its own",
            counted(listing.stateless, "row")
        )
    });
    let doubt = listing
        .doubt()
        .map(|why| format!("{why}; `ss -tanoe` lists every socket"));
    let cut_off = listing.cut_off.map(|line| {
        format!(
            "the text ends within line {line}, which is left out, and what came behind it is \
             unknown; where only the end of that line was lost, add it"
        )
    });
    let malformed = (listing.malformed > 0).then(|| {
        format!(
            "{} not understood and left out, the first is line {}{}",
            counted(listing.malformed, "row"),
            listing.first_malformed,
            if listing.named > 0 {
                ": it has names instead of numbers, and -n prints numbers"
            } else {
                ""
            }
        )
    });
    let cut = (listing.cut() > 0).then(|| {
        format!(
            "{} may be cut off at the width of the column: `netstat --wide` prints all of them",
            counted(listing.cut(), "IPv6 address")
        )
    });
    [stateless, doubt, cut_off, malformed, cut]
        .into_iter()
        .flatten()
}

/// What is there more than once.
fn double_rows(listing: &Listing) -> impl Iterator<Item = String> {
    let superseded = (listing.superseded > 0).then(|| {
        format!(
            "{} of the same connections before the last one left out",
            counted(listing.superseded, "listing")
        )
    });
    let repeated = (listing.repeated > 0).then(|| {
        format!(
            "{} there more than once, and counted once",
            counted(listing.repeated, "row")
        )
    });
    superseded.into_iter().chain(repeated)
}

/// What the rows do not tell.
fn missing_columns(
    listing: &Listing,
    settings: &[(String, String)],
) -> impl Iterator<Item = (&'static str, String, Weight)> {
    let untimed = listing.untimed();
    let timers = (untimed > 0).then(|| {
        let why = format!(
            "since when {} TIME_WAIT are there is unknown, and with that the rate, the forecast, \
             and what can be had again: option -o prints them",
            count(untimed as u64)
        );
        let weight = if is_rate_of_weight(&listing.sockets, settings) {
            Weight::Decisive
        } else {
            Weight::Minor
        };
        ("timers", why, weight)
    });
    let is_without = listing.doubt().is_none() && !listing.has(TcpState::Listen);
    let listeners = is_without.then(|| {
        let why = "there are none, so connections that were accepted cannot be told from those that \
                   were opened here: option -a lists them";
        ("listeners", why.to_owned(), Weight::Minor)
    });
    timers.into_iter().chain(listeners)
}

/// Whether some flow may be about to run out of ports, as far as its TIME_WAIT tells without their
/// ages: in the worst case all were closed within the last second, and so it goes on for a minute.
fn is_rate_of_weight(sockets: &[Socket], settings: &[(String, String)]) -> bool {
    const SECONDS: u32 = 60;
    let mut settings = settings.iter();
    let range = settings.find(|(key, _)| key == "net.ipv4.ip_local_port_range");
    let Some(range) = range.and_then(|(_, range)| PortRange::parse(range)) else {
        return true;
    };
    let mut flows: HashMap<Flow, u32> = HashMap::new();
    for socket in sockets.iter().filter(|it| it.state == TcpState::TimeWait) {
        *flows.entry(Flow::of(socket)).or_default() += 1;
    }
    let most = flows.values().max().copied().unwrap_or(0);
    most.saturating_mul(SECONDS) >= range.len()
}
