//! MySQL option files, as far as they say how to log in
//! (<https://dev.mysql.com/doc/refman/9.7/en/option-files.html>). Read byte by byte as `mysys/my_default.cc`
//! does, which all of MySQL's and MariaDB's programs share but for small things.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::tls::{TlsMode, TlsWish};
use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::system::file;
use crate::words;

/// One option of a file, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its group, in small letters.
    pub group: String,
    /// The name, which need not be one that anybody knows.
    pub name: Vec<u8>,
    /// The value; `None` where there is no `=`.
    pub value: Option<Vec<u8>>,
    /// Where it stands.
    pub place: Place,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: usize,
}

/// What a file holds, and what clients say that read it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OptionFile {
    /// Its options, and those of the files that it includes, in their order.
    pub entries: Vec<Entry>,
    /// What is passed over.
    pub notes: Vec<String>,
}

impl OptionFile {
    /// Reads `path`, and what it includes.
    ///
    /// # Errors
    /// When a file cannot be read, is writable by everyone, or has a line at which the clients stop.
    pub fn read(path: &Path) -> Result<Self> {
        let mut file = Self::default();
        file.add(path, 0, &mut 0)?;
        Ok(file)
    }

    /// Adds a file included `depth` files deep, `read` files after the first.
    fn add(&mut self, path: &Path, depth: usize, read: &mut usize) -> Result<()> {
        /// The clients' own bound.
        const DEEPEST: usize = 10;
        /// Within it, folders that include themselves are read over and over.
        const MOST: usize = 1000;
        /// Where the clients cut a line in two.
        const LONGEST_LINE: usize = 4094;
        *read += 1;
        if *read > MOST {
            return Err(refusal(
                path,
                "files include each other, or too many others",
                "break the circle",
            ));
        }
        if depth > DEEPEST {
            self.notes.push(format!(
                "{} is not included once more, {DEEPEST} files deep: files include each other",
                path.display()
            ));
            return Ok(());
        }
        let unreadable = |error: std::io::Error| {
            refusal(
                path,
                &error.to_string(),
                "name a file with a group [client], such as ~/.my.cnf, that this user may read",
            )
        };
        let bytes = file::bytes_named_by_user(path).map_err(unreadable)?;
        let kind = fs::metadata(path).map_err(unreadable)?;
        if kind.is_file() && kind.mode() & 0o002 != 0 {
            return Err(refusal(
                path,
                "it is writable by everyone, so anyone could name another server in it",
                "chmod o-w; the mysql client ignores such a file",
            ));
        }
        let mut group = None;
        // With the end of the line, which is a blank like others.
        for (number, line) in (1..).zip(bytes.split_inclusive(|byte| *byte == b'\n')) {
            // In C a text ends there.
            let line = line.split(|byte| *byte == 0).next().unwrap_or_default();
            let wrong = |why: &str| {
                // The line may hold a password.
                refusal(
                    path,
                    &format!("line {number}: {why}"),
                    "a line is [group], option=value, option, !include FILE, or # comment",
                )
            };
            if line.len() > LONGEST_LINE {
                return Err(wrong(
                    "it is longer than 4,094 bytes, where the clients cut it",
                ));
            }
            match Line::parse(line).map_err(wrong)? {
                Line::Nothing => {}
                Line::Group(name) => group = Some(name),
                Line::Include(include) => {
                    let file = Path::new(&include);
                    // The clients go on without it; a pipe would hold them up.
                    let why = match fs::metadata(file) {
                        Err(error) => Some(error.to_string()),
                        Ok(kind) if kind.is_file() || file == Path::new("/dev/null") => None,
                        Ok(_) => Some("it is no file".into()),
                    };
                    match why {
                        Some(why) => self.notes.push(format!(
                            "{} line {number}: {include} is not included: {why}",
                            path.display()
                        )),
                        None => self.add(file, depth + 1, read)?,
                    }
                }
                Line::IncludeFolder(folder) => {
                    for file in files_in(Path::new(&folder)).map_err(unreadable)? {
                        self.add(&file, depth + 1, read)?;
                    }
                }
                Line::Option { name, value } => {
                    let group = group
                        .clone()
                        .ok_or_else(|| wrong("an option stands before any [group]"))?;
                    self.entries.push(Entry {
                        group,
                        name,
                        value,
                        place: Place {
                            file: path.to_owned(),
                            line: number,
                        },
                    });
                }
            }
        }
        Ok(())
    }
}

fn refusal(path: &Path, why: &str, hint: &'static str) -> anyhow::Error {
    Refusal::new(
        format!("reading options from {}: {why}", words::path(path)),
        hint,
    )
    .into()
}

/// What a line says.
enum Line {
    Nothing,
    /// In small letters: the clients do not tell them apart.
    Group(String),
    Include(String),
    IncludeFolder(String),
    Option {
        name: Vec<u8>,
        value: Option<Vec<u8>>,
    },
}

impl Line {
    fn parse(line: &[u8]) -> Result<Self, &'static str> {
        let line = trimmed_start(line);
        match line {
            [] | [b'#' | b';', ..] => Ok(Self::Nothing),
            [b'!', directive @ ..] => Self::directive(trimmed_start(directive)),
            [b'[', group @ ..] => {
                let end = group.iter().position(|byte| *byte == b']');
                let group = trimmed_end(&group[..end.ok_or("] is missing")?]);
                Ok(Self::Group(
                    String::from_utf8_lossy(group).to_ascii_lowercase(),
                ))
            }
            option => {
                let option = without_comment(option);
                let equals = option.iter().position(|byte| *byte == b'=');
                Ok(Self::Option {
                    name: trimmed_end(&option[..equals.unwrap_or(option.len())]).to_vec(),
                    value: equals.map(|equals| value(&option[equals + 1..])),
                })
            }
        }
    }

    fn directive(text: &[u8]) -> Result<Self, &'static str> {
        let argument = |keyword: &[u8]| {
            let rest = text.strip_prefix(keyword)?;
            let is_apart = rest.first().is_some_and(|byte| is_space(*byte));
            is_apart.then(|| String::from_utf8_lossy(trimmed(rest)).into_owned())
        };
        let (found, folder) = match (argument(b"includedir"), argument(b"include")) {
            (Some(folder), _) => (folder, true),
            (None, Some(file)) => (file, false),
            // The clients pass over any other.
            (None, None) => return Ok(Self::Nothing),
        };
        match (found.is_empty(), folder) {
            (true, _) => Err("it does not say what to include"),
            (false, true) => Ok(Self::IncludeFolder(found)),
            (false, false) => Ok(Self::Include(found)),
        }
    }
}

/// As `my_isspace` has it in latin1, with its no-break space: the second byte of a few letters in
/// UTF-8, which the clients cut off where it is the last one too.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r' | 0xa0)
}

fn trimmed_start(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !is_space(*byte));
    &text[start.unwrap_or(text.len())..]
}

fn trimmed_end(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|byte| !is_space(*byte));
    &text[..end.map_or(0, |last| last + 1)]
}

fn trimmed(text: &[u8]) -> &[u8] {
    trimmed_end(trimmed_start(text))
}

/// The `.cnf` files of a folder, in the order of their names.
fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    // The clients read nothing out of a folder of that name, and a pipe would hold them up.
    files.retain(|file| {
        file.extension().is_some_and(|extension| extension == "cnf") && file.is_file()
    });
    files.sort();
    Ok(files)
}

/// `text` up to a comment outside of quotes.
fn without_comment(text: &[u8]) -> &[u8] {
    let mut quote = None;
    let mut escaped = false;
    for (at, &byte) in text.iter().enumerate() {
        if matches!(byte, b'"' | b'\'') && !escaped {
            quote = match quote {
                None => Some(byte),
                Some(open) if open == byte => None,
                open => open,
            };
        }
        if quote.is_none() && byte == b'#' {
            return &text[..at];
        }
        escaped = quote.is_some() && byte == b'\\' && !escaped;
    }
    text
}

/// The value that is written as `text`: without blanks around it, quotes, and escapes.
fn value(text: &[u8]) -> Vec<u8> {
    let text = match trimmed(text) {
        [open @ (b'"' | b'\''), inner @ .., close] if open == close => inner,
        bare => bare,
    };
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        if byte != b'\\' {
            value.push(byte);
            continue;
        }
        match bytes.next() {
            Some(b'b') => value.push(0x08),
            Some(b't') => value.push(b'\t'),
            Some(b'n') => value.push(b'\n'),
            Some(b'r') => value.push(b'\r'),
            Some(b's') => value.push(b' '),
            Some(&escaped @ (b'\\' | b'"' | b'\'')) => value.push(escaped),
            Some(&other) => value.extend([b'\\', other]),
            None => value.push(b'\\'),
        }
    }
    value
}

/// What the group `[client]` of a file says; the last mention of an option counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// `host`
    pub host: Option<String>,
    /// `port`
    pub port: Option<u16>,
    /// `user`
    pub user: Option<String>,
    /// `password`
    pub password: Option<Secret>,
    /// `database`
    pub database: Option<String>,
    /// `ssl` and its companions; `None` where they do not insist on TLS.
    pub tls: Option<TlsWish>,
    /// Where it asks for `ssl-mode=VERIFY_CA`; `None` where it does not.
    pub verify_ca: Option<Place>,
    /// A host of a group that is not read, and where it stands; `None` without any.
    pub host_elsewhere: Option<(String, Place)>,
    /// What to tell the user: where mysql and mariadb differ about the file, and what is passed over.
    pub notes: Vec<String>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file.display(), self.line)
    }
}

/// The options that are about logging in. mariadb takes what begins like one of them, in letters of
/// either size, for it; mysql does not.
const OPTIONS: [&str; 9] = [
    "database",
    "host",
    "password",
    "port",
    "ssl-ca",
    "ssl-cert",
    "ssl-key",
    "ssl-verify-server-cert",
    "user",
];

/// Names that are no option of either client, and that are meant for the login: mariadb stops at
/// them, and mysql goes on without.
const MEANT_FOR_LOGIN: [&str; 8] = ["h", "u", "p", "d", "db", "dbname", "pwd", "server"];

/// What such a name begins with.
const MEANT_BY_THEIR_BEGINNING: [&str; 6] = ["host", "user", "pass", "port", "database", "ssl"];

/// Names that begin so, and are options of a client.
const OTHERS_THAT_BEGIN_SO: [&str; 3] = ["port-open-timeout", "ssl-fips-mode", "ssl-session-data"];

/// Groups beside `[client]`, and who reads them.
const OTHER_GROUPS: [(&str, &str); 4] = [
    ("client-server", "mariadb alone reads that"),
    ("client-mariadb", "mariadb alone reads that"),
    ("mysql", "that is for the mysql program alone"),
    ("mariadb", "mariadb alone reads that"),
];

impl ClientOptions {
    /// Reads `path`, and what it includes: of the group `client`, and of that with this `suffix`.
    ///
    /// # Errors
    /// As [`OptionFile::read`], and when an option has a value that it cannot have.
    pub fn read(path: &Path, suffix: &str) -> Result<Self> {
        let file = OptionFile::read(path)?;
        let mut options = Self {
            notes: file.notes,
            ..Self::default()
        };
        let mut tls = TlsOptions::default();
        let suffixed = format!("client{}", suffix.to_ascii_lowercase());
        for entry in &file.entries {
            if entry.group != "client" && entry.group != suffixed {
                options.pass_over(entry);
                continue;
            }
            options.take(entry, &mut tls).map_err(|why| {
                refusal(
                    &entry.place.file,
                    &format!("line {}: {why}", entry.place.line),
                    "mend the line, or leave it out",
                )
            })?;
        }
        options.verify_ca.clone_from(&tls.verify_ca);
        if !tls.is_on() && tls.on_by_mode.is_none() {
            tls.note_skipped();
        }
        options.notes.append(&mut tls.notes);
        options.tls = tls.wish()?;
        Ok(options)
    }

    /// Reads `~/.my.cnf`; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::read`].
    #[must_use]
    pub fn of_home(suffix: &str) -> Option<Result<Self>> {
        let file = std::env::home_dir()?.join(".my.cnf");
        file.exists().then(|| Self::read(&file, suffix))
    }

    /// Passes over an option of a group that only one program reads.
    fn pass_over(&mut self, entry: &Entry) {
        let (written, _) = bare_name(entry);
        let about_login =
            ["host", "port", "user", "password", "database"].contains(&written.as_str());
        let other = OTHER_GROUPS.iter().find(|(group, _)| *group == entry.group);
        let Some((group, who)) = other.filter(|_| about_login) else {
            return;
        };
        let place = &entry.place;
        self.notes.push(format!(
            "{place}: {written} of [{group}] is not taken: {who}; put it into [client]"
        ));
        if let Some(host) = entry.value.as_ref().filter(|_| written == "host") {
            let host = String::from_utf8_lossy(host).into_owned();
            self.host_elsewhere = Some((host, place.clone()));
        }
    }

    /// Takes what is about logging in; the other options are for other programs.
    fn take(&mut self, entry: &Entry, tls: &mut TlsOptions) -> Result<(), String> {
        let (written, is_loose) = bare_name(entry);
        let place = entry.place.to_string();
        let name = self.full_name(&written, &place);
        let value = || {
            let value = entry.value.as_ref();
            let value = value.ok_or_else(|| format!("{name} has no value"))?;
            String::from_utf8(value.clone()).map_err(|_| format!("{name} is not UTF-8"))
        };
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        match name {
            // Empty ones are the default, as in both clients.
            "host" => self.host = filled(value()?),
            "user" => self.user = filled(value()?),
            "database" => self.database = filled(value()?),
            "password" => {
                if entry.value.is_none() {
                    self.notes.push(format!(
                        "{place}: password has no value: the clients ask for it there, and here \
                         --ask-password does"
                    ));
                }
                let typed = entry.value.as_ref().map(|_| value()).transpose()?;
                self.password = typed.map(Secret::from);
            }
            "password1" => {
                self.notes.push(format!(
                    "{place}: password1 is taken for password, as mysql does; mariadb does not know \
                     it"
                ));
                self.password = Some(Secret::from(value()?));
            }
            "password2" | "password3" => self.notes.push(format!(
                "{place}: {name} is for another factor, which is not spoken here; mariadb does not \
                 know it"
            )),
            // Not even that of the environment.
            "skip-password" | "disable-password" => {
                self.password = Some(Secret::from(String::new()));
            }
            "port" => {
                let port: u16 = value()?
                    .parse()
                    .map_err(|_| "it is no port, 1 to 65535, or 0 for the default")?;
                self.port = Some(port).filter(|port| *port != 0);
            }
            name if TlsOptions::knows(name) => {
                tls.take(
                    name,
                    entry.value.as_ref().map(|_| value()).transpose()?,
                    &entry.place,
                )?;
            }
            name if !is_loose && is_meant_for_login(name) => {
                return Err(
                    "it is no option of mysql or mariadb, and seems to be meant for the login: one \
                     stops at it, the other goes on without. A line of the login is host=…, port=…, \
                     user=…, password=…, database=… or ssl-…=…"
                        .into(),
                );
            }
            _ => {}
        }
        Ok(())
    }

    /// The option that `written` is taken for.
    fn full_name<'a>(&mut self, written: &'a str, place: &str) -> &'a str
    where
        'static: 'a,
    {
        /// Shorter ones are ambiguous, or the beginning of an option of another program's.
        const SHORTEST: usize = 2;
        let small = written.to_ascii_lowercase();
        if OPTIONS.contains(&written) || small.len() < SHORTEST {
            return written;
        }
        let mut meant = OPTIONS.iter().filter(|option| option.starts_with(&small));
        match (meant.next(), meant.next()) {
            (Some(option), None) => {
                self.notes.push(format!(
                    "{place}: {written} is taken for {option}, as mariadb does; mysql does not know \
                     it"
                ));
                option
            }
            _ => written,
        }
    }
}

/// The name of an option as the clients compare it, and whether it may be one that they do not know.
fn bare_name(entry: &Entry) -> (String, bool) {
    let written = String::from_utf8_lossy(&entry.name).replace('_', "-");
    let mut bare = written.as_str();
    for prefix in ["loose-", "maximum-"] {
        bare = bare.strip_prefix(prefix).unwrap_or(bare);
    }
    (bare.to_owned(), written.starts_with("loose-"))
}

/// Whether `name`, which no client knows, stands where an option of the login is meant: `user u1`,
/// `user: u1`, `--user`, `passwd`.
fn is_meant_for_login(name: &str) -> bool {
    let small = name.to_ascii_lowercase();
    let word = small.trim_start_matches('-');
    let word = word.split([' ', '\t', ':']).next().unwrap_or_default();
    let bare = ["skip-", "disable-", "enable-"]
        .iter()
        .find_map(|prefix| word.strip_prefix(prefix))
        .unwrap_or(word);
    let begins = MEANT_BY_THEIR_BEGINNING
        .iter()
        .any(|beginning| bare.starts_with(beginning));
    MEANT_FOR_LOGIN.contains(&bare) || begins && !OTHERS_THAT_BEGIN_SO.contains(&bare)
}

/// What a file says about TLS, as it goes on.
#[derive(Default)]
struct TlsOptions {
    /// Whether to insist on it, as mariadb has it: the last mention counts, and each of a file or of
    /// a fingerprint is one.
    on: Option<bool>,
    /// The same of `ssl-mode`, which mysql alone knows, and which decides there.
    on_by_mode: Option<bool>,
    /// Where the last of them switches it off that mysql does not know.
    skipped: Option<Place>,
    /// What a client would look at that is not looked at here.
    not_spoken: Option<(&'static str, Place)>,
    verify_ca: Option<Place>,
    notes: Vec<String>,
    mode: Option<TlsMode>,
    authority: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Options about the server's certificate that are not looked at here.
const NOT_SPOKEN: [&str; 5] = [
    "ssl-capath",
    "ssl-crl",
    "ssl-crlpath",
    "ssl-fp",
    "ssl-fplist",
];

impl TlsOptions {
    /// The name without what switches it on or off, and whether it is switched off.
    fn bare(name: &str) -> (&str, bool) {
        ["skip-", "disable-", "enable-"]
            .iter()
            .find_map(|prefix| Some((name.strip_prefix(prefix)?, *prefix != "enable-")))
            .unwrap_or((name, false))
    }

    fn knows(name: &str) -> bool {
        let (bare, _) = Self::bare(name);
        let known = [
            "ssl",
            "ssl-verify-server-cert",
            "ssl-mode",
            "ssl-ca",
            "ssl-cert",
            "ssl-key",
            "ssl-cipher",
        ];
        known.contains(&bare) || NOT_SPOKEN.contains(&bare)
    }

    fn take(&mut self, name: &str, value: Option<String>, place: &Place) -> Result<(), String> {
        let is_on = |value: Option<&String>| {
            value.is_none_or(|on| matches!(on.to_ascii_uppercase().as_str(), "1" | "ON" | "TRUE"))
        };
        let (bare, is_negated) = Self::bare(name);
        match bare {
            "ssl" => {
                let on = is_on(value.as_ref()) != is_negated;
                self.on = Some(on);
                self.skipped = (!on).then(|| place.clone());
            }
            "ssl-verify-server-cert" => {
                let verifies = is_on(value.as_ref()) != is_negated;
                self.mode = Some(if verifies {
                    TlsMode::VerifyFull
                } else {
                    TlsMode::Required
                });
                // Where it is off mariadb goes on without TLS if need be.
                if verifies {
                    self.on.get_or_insert(true);
                }
            }
            "ssl-mode" => self.take_mode(value, place)?,
            "ssl-ca" => {
                let value = value.ok_or("ssl-ca has no value")?;
                if value.is_empty() {
                    return Err("ssl-ca is empty, at which both clients stop".into());
                }
                self.authority = Some(PathBuf::from(value));
                self.on = Some(true);
            }
            "ssl-cert" | "ssl-key" => {
                let value = value.ok_or_else(|| format!("{bare} has no value"))?;
                let file = Some(PathBuf::from(value)).filter(|file| !file.as_os_str().is_empty());
                if file.is_some() {
                    self.on = Some(true);
                }
                if bare == "ssl-cert" {
                    self.certificate = file;
                } else {
                    self.key = file;
                }
            }
            _ => {
                let known = NOT_SPOKEN.iter().find(|known| **known == bare);
                let empty_print = bare.starts_with("ssl-fp") && value.is_some_and(|v| v.is_empty());
                if let Some(known) = known.filter(|_| !empty_print) {
                    self.not_spoken = Some((*known, place.clone()));
                    if !bare.starts_with("ssl-crl") {
                        self.on = Some(true);
                    }
                }
            }
        }
        Ok(())
    }

    fn take_mode(&mut self, value: Option<String>, place: &Place) -> Result<(), String> {
        let value = value.ok_or("ssl-mode has no value")?;
        let (on, mode) = match value.to_ascii_uppercase().as_str() {
            "DISABLED" | "PREFERRED" => (false, None),
            "REQUIRED" => (true, Some(TlsMode::Required)),
            "VERIFY_CA" => (true, Some(TlsMode::VerifyCa)),
            "VERIFY_IDENTITY" => (true, Some(TlsMode::VerifyFull)),
            _ => {
                return Err(
                    "ssl-mode is none of DISABLED, PREFERRED, REQUIRED, VERIFY_CA and \
                            VERIFY_IDENTITY"
                        .into(),
                );
            }
        };
        (self.on_by_mode, self.mode) = (Some(on), mode);
        self.verify_ca = (mode == Some(TlsMode::VerifyCa)).then(|| place.clone());
        Ok(())
    }

    /// The last mention of `ssl` switches it off, and mysql does not know that one.
    fn note_skipped(&mut self) {
        let files = self.authority.is_some() || self.certificate.is_some();
        if let Some(place) = self.skipped.take().filter(|_| files) {
            self.notes.push(format!(
                "{place}: TLS is switched off, as mariadb does; mysql does not know that line, and \
                 insists on TLS for the files that are named for it"
            ));
        }
    }

    fn is_on(&self) -> bool {
        self.on_by_mode.or(self.on).unwrap_or(false)
    }

    fn wish(self) -> Result<Option<TlsWish>> {
        if !self.is_on() {
            return Ok(None);
        }
        if let Some((name, place)) = &self.not_spoken {
            return Err(Refusal::new(
                format!(
                    "{place}: {name} is about the server's certificate, and is not looked at here"
                ),
                "name the authority's certificate with ssl-ca instead; or leave the file out, and \
                 say --host, --user and --tls=required, which checks no certificate",
            )
            .into());
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate, key)),
            _ => {
                return Err(Refusal::new(
                    "the option file has one of ssl-cert and ssl-key",
                    "name both, the certificate and its key",
                )
                .into());
            }
        };
        Ok(Some(TlsWish {
            mode: self.mode.unwrap_or_default(),
            authority: self.authority,
            identity,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<ClientOptions> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.cnf");
        fs::write(
            &file,
            text.replace("FOLDER", folder.path().to_str().unwrap()),
        )
        .unwrap();
        let more = folder.path().join("conf.d");
        fs::create_dir(&more).unwrap();
        fs::write(more.join("more.cnf"), "[client]\nport=3310\n").unwrap();
        fs::write(more.join("none.txt"), "[client]\nport=1\n").unwrap();
        ClientOptions::read(&file, "")
    }

    fn options(lines: &str) -> ClientOptions {
        read(&format!("[client]\n{lines}")).unwrap()
    }

    #[test]
    fn the_group_client_is_read_as_the_clients_read_it() {
        let options = read(
            "# mine\n[mysqld]\nport=1\n[CLIENT ]\n; here\nhost = db.example # not there\n\
             user=\"app user\"\npassword = 'a#b\\s\\\\c'\nloose_database=shop\nssl_ca=/ca.pem\n\
             ssl\ndefault-character-set=utf8mb4\ncompress\n[mysql]\ncompress\n\
             !includedir FOLDER/conf.d\n",
        )
        .unwrap();
        assert_eq!(
            options,
            ClientOptions {
                host: Some("db.example".into()),
                port: Some(3310),
                user: Some("app user".into()),
                password: Some(Secret::from("a#b \\c".to_owned())),
                database: Some("shop".into()),
                tls: Some(TlsWish {
                    authority: Some("/ca.pem".into()),
                    ..TlsWish::default()
                }),
                ..ClientOptions::default()
            }
        );
    }

    #[test]
    fn empty_values_and_port_0_are_the_default() {
        let none = ClientOptions::default();
        for line in ["host=", "user=\"\"", "port=0", "database=", "host=a\nhost="] {
            assert_eq!(options(line), none, "{line}");
        }
        assert_eq!(
            options("password=").password,
            Some(Secret::from(String::new()))
        );
    }

    #[test]
    fn what_a_file_says_of_tls_is_what_the_clients_take_from_it() {
        use TlsMode::{Required, VerifyCa, VerifyFull};
        for (lines, mode) in [
            ("ssl # insist = yes", Some(VerifyFull)),
            ("ssl=false", None),
            ("ssl=On", Some(VerifyFull)),
            ("ssl-ca=/ca.pem", Some(VerifyFull)),
            ("ssl-ca=/ca.pem\nskip-ssl", None),
            ("ssl\ndisable-ssl", None),
            ("enable-ssl", Some(VerifyFull)),
            ("ssl\nskip-ssl-verify-server-cert", Some(Required)),
            ("ssl\nssl-verify-server-cert=0", Some(Required)),
            ("skip-ssl-verify-server-cert", None),
            ("ssl-mode=REQUIRED", Some(Required)),
            ("ssl-mode=verify_ca", Some(VerifyCa)),
            ("ssl-mode=VERIFY_IDENTITY", Some(VerifyFull)),
            ("ssl-mode=PREFERRED", None),
            ("ssl-ca=/ca.pem\nssl_mode=DISABLED", None),
            ("ssl-cert=/c.pem\nssl-key=/k.pem", Some(VerifyFull)),
            // mariadb's order of the lines; ssl-mode decides in mysql, wherever it stands.
            ("skip-ssl\nssl-ca=/ca.pem", Some(VerifyFull)),
            ("ssl-mode=DISABLED\nssl-ca=/ca.pem", None),
            ("ssl-mode=DISABLED\nssl-capath=/c", None),
            ("ssl-capath=/c\nskip-ssl", None),
            ("ssl-verify-server-cert", Some(VerifyFull)),
            ("ssl-verify", Some(VerifyFull)),
            ("skip-ssl\nssl-verify-server-cert", None),
            ("ssl-fp=", None),
        ] {
            assert_eq!(options(lines).tls.map(|wish| wish.mode), mode, "{lines}");
        }
    }

    #[test]
    fn where_the_clients_differ_it_is_said() {
        let meant = |lines: &str| {
            let options = options(lines);
            (options.host, options.user, options.notes.len())
        };
        let (host, user) = (Some("a".to_owned()), Some("a".to_owned()));
        assert_eq!(meant("hos=a"), (host.clone(), None, 1));
        assert_eq!(meant("Host=a"), (host, None, 1));
        assert_eq!(meant("US=a"), (None, user, 1));
        // Not one option alone, or none of ours.
        assert_eq!(meant("ssl=0\nss=1\nloose-hostess=a"), (None, None, 0));
        for (group, notes) in [("mysql", 1), ("client-mariadb", 1), ("mysqldump", 0)] {
            let options = read(&format!("[{group}]\nhost=a\ncompress")).unwrap();
            assert_eq!(
                (options.host, options.notes.len()),
                (None, notes),
                "{group}"
            );
        }
    }

    #[test]
    fn one_letter_that_is_not_utf_8_spoils_its_own_option_alone() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.cnf");
        fs::write(&file, b"# caf\xe9\n[client]\nhost=a\nprompt=\xff\n").unwrap();
        assert_eq!(
            ClientOptions::read(&file, "").unwrap().host,
            Some("a".into())
        );
        fs::write(&file, b"[client]\nhost=a\xff\n").unwrap();
        let error = ClientOptions::read(&file, "").unwrap_err().to_string();
        assert!(error.ends_with("line 2: host is not UTF-8"), "{error}");
    }

    #[test]
    fn what_is_no_file_may_be_writable_by_everyone() {
        assert_eq!(
            ClientOptions::read(Path::new("/dev/null"), "").unwrap(),
            ClientOptions::default()
        );
    }

    #[test]
    fn a_wrong_line_is_named_without_its_words() {
        for (text, why) in [
            (
                "[client]\npassword=hunter2\nport=hunter3\n",
                "line 3: it is no port",
            ),
            ("[client]\nport=65536\n", "line 2: it is no port"),
            ("[client\npassword=hunter2\n", "line 1: ] is missing"),
            ("[client]\nhost\n", "line 2: host has no value"),
            ("password=hunter2\n", "line 1: an option stands before any"),
            ("\u{feff}[client]\n", "line 1: an option stands before any"),
            ("[client]\nssl-mode=hunter2", "line 2: ssl-mode is none of"),
            ("[client]\nssl-cert=/c.pem", "one of ssl-cert and ssl-key"),
            ("!includedir FOLDER/absent", "No such file"),
            ("[client]\nssl-ca=", "line 2: ssl-ca is empty"),
            ("[client]\nssl-capath=/c", "line 2: ssl-capath is about"),
            ("[client]\nskip-ssl\nssl-fp=AA", "line 3: ssl-fp is about"),
            ("[client]\nssl\nssl-crl=/c", "line 3: ssl-crl is about"),
            ("[client]\nuser hunter2", "line 2: it is no option"),
            ("[client]\npassword hunter2", "line 2: it is no option"),
            ("[client]\nuser: hunter2", "line 2: it is no option"),
            ("[client]\n--user=hunter2", "line 2: it is no option"),
            ("[client]\npasswd=hunter2", "line 2: it is no option"),
            ("[client]\nh=hunter2", "line 2: it is no option"),
            ("[client]\nu=hunter2", "line 2: it is no option"),
            ("[client]\nhostname=hunter2", "line 2: it is no option"),
            ("[client]\nskip-user", "line 2: it is no option"),
            ("[client]\nssl-mod=REQUIRED", "line 2: it is no option"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("hunter"), "{error}");
        }
        // The clients go on without a file that is not there.
        let options = read("!include FOLDER/absent.cnf\n[client]\nhost=a").unwrap();
        assert_eq!((options.host, options.notes.len()), (Some("a".into()), 1));
        // And with what came before a circle.
        let options = read("[client]\nhost=a\n!include FOLDER/my.cnf").unwrap();
        assert_eq!((options.host, options.notes.len()), (Some("a".into()), 1));
    }

    #[test]
    fn what_the_clients_obey_of_a_password_is_obeyed() {
        let password = |lines: &str| {
            let options = options(lines);
            let password = options.password.map(|secret| secret.reveal().to_owned());
            (password, options.notes.len())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(password("password=a\nskip-password"), (some(""), 0));
        assert_eq!(password("password=a\ndisable-password"), (some(""), 0));
        assert_eq!(password("password1=a"), (some("a"), 1));
        assert_eq!(password("pass=a"), (some("a"), 1));
        // They ask for it.
        assert_eq!(password("password"), (None, 1));
        assert_eq!(password("password2=a"), (None, 1));
    }

    #[test]
    fn a_suffix_adds_its_own_group() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.cnf");
        let text = "[client]\nhost=a\n[client_prod]\nhost=b\n[client_test]\nhost=c\n";
        fs::write(&file, text).unwrap();
        for (suffix, host) in [("", "a"), ("_prod", "b"), ("_PROD", "b"), ("_x", "a")] {
            let options = ClientOptions::read(&file, suffix).unwrap();
            assert_eq!(options.host.as_deref(), Some(host), "{suffix}");
        }
    }

    /// Three lines in each of ten depths would be 59,049 files.
    #[test]
    fn files_that_include_each_other_more_than_once_are_no_endless_work() {
        let fork = "!include FOLDER/conf.d/fork.cnf\n".repeat(3);
        let folder = tempfile::tempdir().unwrap();
        let name = |text: &str| text.replace("FOLDER", folder.path().to_str().unwrap());
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        // The end of each branch is no circle, so that depth alone would not end it.
        for depth in 0..9 {
            let next = fork.replace("fork", &format!("fork{}", depth + 1));
            let file = format!("FOLDER/conf.d/fork{depth}.cnf");
            fs::write(name(&file), name(&next)).unwrap();
        }
        fs::write(name("FOLDER/conf.d/fork9.cnf"), "").unwrap();
        let error = ClientOptions::read(Path::new(&name("FOLDER/conf.d/fork0.cnf")), "");
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("include each other")
        );
    }

    #[test]
    fn a_file_that_everyone_may_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("my.cnf");
        fs::write(&file, "[client]\nuser=app\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        let error = ClientOptions::read(&file, "").unwrap_err().to_string();
        assert!(error.contains("writable by everyone"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = value(text.as_bytes());
            let _ = read(&format!("[client]\n{}", text.replace('!', "")));
        }
    }
}
