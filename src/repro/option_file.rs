//! MySQL option files, as far as they say how to log in
//! (<https://dev.mysql.com/doc/refman/8.4/en/option-files.html>).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::refusal::Refusal;
use crate::secret::Secret;
use crate::system::file;

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
    /// `ssl`, or an `ssl-mode` that insists on TLS.
    pub tls: bool,
    /// `ssl-ca`
    pub tls_ca: Option<PathBuf>,
}

impl ClientOptions {
    /// Reads `path`, and what it includes.
    ///
    /// # Errors
    /// When a file cannot be read, is writable by everyone, or has a line that is no option.
    pub fn read(path: &Path) -> Result<Self> {
        let mut options = Self::default();
        options.add_file(path, 0, &mut 0)?;
        Ok(options)
    }

    /// Reads `~/.my.cnf`; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::read`].
    #[must_use]
    pub fn of_home() -> Option<Result<Self>> {
        let file = std::env::home_dir()?.join(".my.cnf");
        file.exists().then(|| Self::read(&file))
    }

    /// Adds a file included `depth` files deep, `read` files after the first.
    fn add_file(&mut self, path: &Path, depth: usize, read: &mut usize) -> Result<()> {
        /// The client's own bound.
        const DEEPEST: usize = 10;
        /// Within it, folders that include themselves are read over and over.
        const MOST: usize = 1000;
        let refusal = |why: String, hint: &'static str| -> anyhow::Error {
            Refusal::new(
                format!("reading options from {}: {why}", path.display()),
                hint,
            )
            .into()
        };
        *read += 1;
        if depth > DEEPEST || *read > MOST {
            return Err(refusal(
                "files include each other, or too many others".into(),
                "break the circle",
            ));
        }
        let unreadable = |error: std::io::Error| {
            refusal(
                error.to_string(),
                "name a file with a group [client], such as ~/.my.cnf, that this user may read",
            )
        };
        let text = file::named_by_user(path).map_err(unreadable)?;
        if fs::metadata(path).map_err(unreadable)?.mode() & 0o002 != 0 {
            let why = "it is writable by everyone, so anyone could name another server in it";
            return Err(refusal(
                why.into(),
                "chmod o-w; the mysql client ignores such a file",
            ));
        }
        let mut in_client = false;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            let wrong = |why: &str| {
                // The line may hold a password.
                refusal(
                    format!("line {number}: {why}"),
                    "a line is [group], option=value, option, !include FILE, or # comment",
                )
            };
            if line.is_empty() || line.starts_with(['#', ';']) {
            } else if let Some(include) = line.strip_prefix("!includedir") {
                for file in files_in(Path::new(include.trim())).map_err(unreadable)? {
                    self.add_file(&file, depth + 1, read)?;
                }
            } else if let Some(include) = line.strip_prefix("!include") {
                self.add_file(Path::new(include.trim()), depth + 1, read)?;
            } else if let Some(group) = line.strip_prefix('[') {
                let (group, _) = group.split_once(']').ok_or_else(|| wrong("] is missing"))?;
                in_client = group.trim() == "client";
            } else if in_client {
                let option = without_comment(line);
                let (name, text) = match option.split_once('=') {
                    Some((name, text)) => (name, Some(value(text))),
                    None => (option, None),
                };
                self.set(&name.trim().replace('_', "-"), text)
                    .map_err(|why| wrong(&why))?;
            }
        }
        Ok(())
    }

    /// Takes what is about logging in; the other options are for other programs.
    fn set(&mut self, name: &str, value: Option<String>) -> Result<(), String> {
        let name = name.strip_prefix("loose-").unwrap_or(name);
        let needed = || value.clone().ok_or_else(|| format!("{name} has no value"));
        match name {
            "host" => self.host = Some(needed()?),
            "user" => self.user = Some(needed()?),
            "database" => self.database = Some(needed()?),
            "password" => self.password = value.map(Secret::from),
            "port" => {
                let port = needed()?;
                let parsed = port.parse().ok().filter(|&port| port != 0);
                self.port = Some(parsed.ok_or("it is no port, 1 to 65535")?);
            }
            "ssl" => {
                let on = value.is_none_or(|on| {
                    matches!(on.to_ascii_uppercase().as_str(), "1" | "ON" | "TRUE")
                });
                self.tls = on;
            }
            "skip-ssl" => self.tls = false,
            "ssl-mode" => {
                let mode = needed()?.to_ascii_uppercase();
                self.tls = matches!(mode.as_str(), "REQUIRED" | "VERIFY_CA" | "VERIFY_IDENTITY");
            }
            "ssl-ca" => {
                // It implies ssl; what comes later can take that back.
                self.tls = true;
                self.tls_ca = Some(needed()?.into());
            }
            _ => {}
        }
        Ok(())
    }
}

/// The `.cnf` files of a folder, in the order of their names.
fn files_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "cnf"));
    files.sort();
    Ok(files)
}

/// `text` up to a comment outside of quotes.
fn without_comment(text: &str) -> &str {
    let mut quote = None;
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (None, '#') => return &text[..at],
            (None, '"' | '\'') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            _ => {}
        }
    }
    text
}

/// The value that is written as `text`: without blanks around it, quotes, and escapes.
fn value(text: &str) -> String {
    let text = text.trim();
    let quoted = ['"', '\''].into_iter().find_map(|quote| {
        let inner = text.strip_prefix(quote)?;
        inner.strip_suffix(quote)
    });
    let mut letters = quoted.unwrap_or(text).chars();
    let mut value = String::new();
    while let Some(letter) = letters.next() {
        if letter != '\\' {
            value.push(letter);
            continue;
        }
        match letters.next() {
            Some('b') => value.push('\u{8}'),
            Some('t') => value.push('\t'),
            Some('n') => value.push('\n'),
            Some('r') => value.push('\r'),
            Some('s') => value.push(' '),
            Some(escaped @ ('\\' | '"' | '\'')) => value.push(escaped),
            Some(other) => value.extend(['\\', other]),
            None => value.push('\\'),
        }
    }
    value
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
        ClientOptions::read(&file)
    }

    #[test]
    fn the_group_client_is_read_as_the_client_reads_it() {
        let options = read(
            "# mine\n[mysqld]\nport=1\n[client]\n; here\nhost = db.example # not there\n\
             user=\"app user\"\npassword = 'a#b\\s\\\\c'\nloose_database=shop\nssl_ca=/ca.pem\n\
             ssl\ndefault-character-set=utf8mb4\ncompress\n[mysql]\nuser=other\n\
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
                tls: true,
                tls_ca: Some("/ca.pem".into()),
            }
        );
        for (line, tls) in [
            ("ssl # insist = yes", true),
            ("ssl=false", false),
            ("ssl=On", true),
            ("ssl-ca=/ca.pem", true),
            ("ssl-ca=/ca.pem\nskip-ssl", false),
        ] {
            let options = read(&format!("[client]\n{line}")).unwrap();
            assert_eq!(options.tls, tls, "{line}");
        }
        let options = read("[client]\npassword=abc\\#def").unwrap();
        assert_eq!(options.password, Some(Secret::from("abc\\".to_owned())));
        for (mode, tls) in [
            ("REQUIRED", true),
            ("verify_ca", true),
            ("PREFERRED", false),
        ] {
            let options = read(&format!("[client]\nssl-mode={mode}")).unwrap();
            assert_eq!(options.tls, tls, "{mode}");
        }
    }

    #[test]
    fn a_wrong_line_is_named_without_its_words() {
        for (text, why) in [
            (
                "[client]\npassword=hunter2\nport=hunter3\n",
                "line 3: it is no port",
            ),
            ("[client\npassword=hunter2\n", "line 1: ] is missing"),
            ("[client]\nhost\n", "line 2: host has no value"),
            ("!include FOLDER/absent.cnf", "No such file"),
            ("!include FOLDER/my.cnf", "include each other"),
        ] {
            let error = format!("{:#}", read(text).unwrap_err());
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("hunter"), "{error}");
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
        let error = ClientOptions::read(Path::new(&name("FOLDER/conf.d/fork0.cnf")));
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
        let error = ClientOptions::read(&file).unwrap_err().to_string();
        assert!(error.contains("writable by everyone"), "{error}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            let _ = value(&text);
            let _ = read(&format!("[client]\n{}", text.replace('!', "")));
        }
    }
}
