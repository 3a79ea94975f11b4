//! Takes passwords out of what is shown.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;

/// What a secret looks like, and what stands there instead.
static SECRETS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        // mysql://user:secret@host, redis://:secret@host; up to the last @ of the word.
        (r#"(://)[^\s"'<>`]*@"#, "$1…@"),
        // user:secret@tcp(host:3306)/shop, of Go's driver.
        (r#"[^\s"'(=`]+:[^\s"'`]*@((?:tcp|unix)[46]?\()"#, "…@$1"),
        // Authorization: Bearer …
        (
            r#"(?i)(authorization["']?\s*[:=]\s*["']?)(?:(basic|bearer|digest|token)\s+)?[^\s"',;]+"#,
            "$1$2 …",
        ),
        (r"(?i)(bearer\s+)[a-z0-9._~+/=-]{8,}", "$1…"),
        // password=…, "password": "…", PGPASSWORD=…, api_key: …, but not (using password: YES)
        (
            r#"(?i)((?:pass(?:w(?:or)?d|phrase)?|pwd|secret|token|api[-_]?key|access[-_]?key|private[-_]?key|credentials?)[a-z0-9_-]*["']?\s*(?:=>|[=:])\s*)("[^"]*"?|'[^']*'?|[^\s)}\]]+)"#,
            "$1…",
        ),
        (r"(?i)(identified\s+(?:with\s+\S+\s+)?(?:by|as)\s+(?:password\s+)?)('[^']*'?|\S+)", "$1…"),
        (r"(?i)(--pass(?:word)?\s+)\S+", "$1…"),
        (r"((?:mysql|mariadb)[a-z_-]*\s(?:[^|;]*?\s)?-p)[^\s-]\S*", "$1…"),
        (r"(?i)\b(auth\s+(?:\S+\s+)?)(\S+)$", "$1…"),
    ]
    .into_iter()
    .filter_map(|(pattern, instead)| Some((Regex::new(pattern).ok()?, instead)))
    .collect()
});

/// `text` without its secrets.
#[must_use]
pub fn masked(text: &str) -> Cow<'_, str> {
    let mut shown = Cow::Borrowed(text);
    for (secret, instead) in SECRETS.iter() {
        if !secret.is_match(&shown) {
            continue;
        }
        let replaced = secret.replace_all(&shown, |found: &regex::Captures<'_>| {
            // MySQL's (using password: YES) is none.
            let value = found.get(2).map_or("", |value| value.as_str());
            if matches!(value, "YES" | "NO") {
                return found[0].to_owned();
            }
            let mut text = String::new();
            found.expand(instead, &mut text);
            text
        });
        shown = Cow::Owned(replaced.into_owned());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_is_one() {
        assert_eq!(SECRETS.len(), 9);
    }

    #[test]
    fn passwords_do_not_show() {
        for line in [
            "mysql://app:hunter2@db.example:3306/shop: Connection refused",
            "mysql+pymysql://app:p@ss:hunter2@db/shop",
            "redis://:hunter2@10.0.0.5:6379/0",
            "postgres://u:hun%2Fter2hunter2@h/db?sslmode=disable",
            "app:hunter2@tcp(10.0.0.5:3306)/shop: dial tcp",
            "host=db user=u password=hunter2 dbname=x",
            "host=db user=u password='hun hunter2' dbname=x",
            r#"{"host":"db","password":"hunter2","port":1}"#,
            r#"{"host":"db","password": "a, hunter2", "port":1}"#,
            "PGPASSWORD=hunter2 psql",
            "MYSQL_PWD=hunter2 mysql",
            "'password' => 'hunter2',",
            "passwd: hunter2",
            "db_password_2: hunter2",
            "Authorization: Bearer hunter2hunter2",
            "Authorization: hunter2",
            "authorization: basic hunter2",
            "api-key=hunter2&x=1",
            "CREATE USER u IDENTIFIED BY 'hunter2'",
            "mysql -u root -phunter2 -h db",
            "mariadb-dump --password hunter2 -h db",
            "client_secret=hunter2",
        ] {
            let shown = masked(line);
            assert!(!shown.contains("hunter2"), "{line}: {shown}");
            assert!(shown.contains('…'), "{line}: {shown}");
        }
    }

    #[test]
    fn the_rest_stays_as_it_is() {
        for line in [
            "Access denied for user 'app'@'10.0.0.7' (using password: YES)",
            "Can't connect to MySQL server on '127.0.0.1' (99)",
            "password authentication failed for user \"app\"",
            "dial tcp [2001:db8::5]:3306: connect: connection refused",
            "upstream: \"http://10.0.0.1:80/\"",
            "mysql -h db -u root -p",
        ] {
            assert_eq!(masked(line), line);
        }
    }
}
