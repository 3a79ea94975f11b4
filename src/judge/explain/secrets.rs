//! Takes passwords out of what is shown. Where it is not sure where one ends, more is taken out.

use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

/// What stands before a secret; the group is the secret, and without a group a value follows.
static BEFORE: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    patterns(&[
        // password=…, "db_pass": "…", PGPASSWORD=…, apiKey: …, 'password' => …, token is …
        r#"(?i)(?:pass(?:w(?:or)?d|phrase|code)?|pwd|(?:\b|_)pw|contraseña|пароль|密码|パスワード|secret|token|credentials?|api[-_ ]?key|(?:access|private|account|shared|encryption)[-_ ]?key|signature|sess(?:ion)?[-_]?id|[cx]srf|\bsig|(?:\b|_)auth(?:orization)?)[a-z0-9_.-]*[\\"'\])]*\s*(?:=>|:=|[=:])\s*"#,
        r"(?i)\b(?:password|passwd|passphrase|secret|token|api key)\s+(?:is|was|set to)\s*:?\s*",
        r#"(?i)\b(?:password|passwd|passphrase)\s+(?:[\\]*["'])?"#,
        r"(?i)\b(?:bearer|basic|digest|negotiate|ntlm)\s+",
        r"(?i)\bidentified\s+(?:(?:with|via)\s+\S+\s+)?(?:by|as|using)\s+(?:password\s*\(?\s*)?",
        r"(?i)--(?:[a-z-]*pass(?:word|wd|phrase)?|token|secret)\s+",
        r"(?i)(?:^|\s)-[a-z]*a\s+",
        r"(?i)\b(?:requirepass|masterauth|auth)\s+(?:\S+\s+)?",
        r#"(?i)\b(?:requirepass|masterauth)[\\"']*\s+"#,
        // 'password', 'secret'; <password>secret; name="password" value="secret"
        r#"(?i)(?:password|passwd|passphrase|secret|token)(?:[\\"']+\s*,\s*|[a-z_-]*>\s*|[\\"']*\s+value\s*=\s*)"#,
    ])
});

/// What a secret looks like by itself or in its place, as its only group.
static SHAPES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    patterns(&[
        // mysql://user:secret@host; up to the last @ of the word.
        r"://(\S*)@",
        // user:secret@tcp(host:3306)/shop, of Go's driver.
        r#"([^\s"'(=`]*:\S*)@(?:tcp|unix)[46]?\("#,
        // user/secret@host, of Oracle; user:secret@host without a scheme
        r"\b[a-z_][\w.-]*[:/]([^\s@]+)@[\w.\[-]",
        // Headers to their end.
        r#"(?i)\b(?:proxy-)?authorization[\\"']*\s*[:=]\s*(.*)"#,
        r#"(?i)\b(?:set-)?cookies?2?[\\"']*\s*[:=]\s*(.*)"#,
        r#"(?i)\bx-[a-z-]*(?:key|token|auth|secret)[a-z-]*[\\"']*\s*[:=]\s*(.*)"#,
        // JSON Web Tokens, and what providers begin their keys with.
        r"\b(eyJ[\w-]{4,}\S*)",
        r"\b((?:AKIA|ASIA)[0-9A-Z]{12,})",
        r"\b((?:gh[pousr]_|github_pat_|glpat-|xox[abprs]-|sk_live_|rk_live_|sk-|AIza|hvs\.|npm_|dop_v1_|ya29\.)[\w.-]{10,}\S*)",
        r"(-----BEGIN [A-Z ]*PRIVATE KEY-----.*)",
        // mysql -psecret
        r"(?:mysql|mariadb)[\w-]*\s(?:.*?\s)?-p([^\s-].*)",
        r"\bsshpass\s+-p\s*(.*)",
        r"\s(?:-u|--user)[ =]?[^\s:]+:(\S+)",
        r#"\bAUTH[\\"']*\s+(\S+(?:\s+\S+)?)"#,
        r"(?i)\bset\s+password\b[^=]*=\s*(.*)",
        // Addresses that are a key themselves.
        r"(?:hooks\.slack\.com/services/|/api/webhooks/|api\.telegram\.org/bot)(\S+)",
        // Calls of PHP with their arguments; of others to connect, the third.
        r"#\d+ [^#]*?\([^,()']*'[^']*',(.*?)(?: #\d+ |$)",
        r"(?i)(?:auth|login|password)[a-z_]*\(\s*([^)\s].*)",
        r#"(?i)(?:connect|construct|connection|pdo|mysqli|open)[a-z_]*\(\s*(?:'[^']*'|"[^"]*"|[\w.]+)\s*,\s*(?:'[^']*'|"[^"]*")\s*,\s*(.*)"#,
    ])
});

/// Words behind `password` that are none.
static NO_PASSWORD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?i)^(?:(?:authentication|authorization|auth|realm|scheme|for|from|of|is|was|has|had|have|must|may|can|cannot|could|does|did|do|not|and|or|in|on|to|at|by|with|without|as|expired|expires|incorrect|required|invalid|failed|failure|mismatch|missing|needed|supplied|provided|given|set|change|changed|check|reset|file|hash|hashing|policy|validation|verification|encryption|plugin|protocol|attempts?|rejected|denied|accepted|error|errors|too|length|field|login|exchange|message|packet|method|prompt|manager|store|database|but|so|because|when|while|if|using|entered|wrong)\b|[)\].,;:=-]|$)",
    )
    .ok()
});

fn patterns(texts: &[&str]) -> Vec<Regex> {
    texts
        .iter()
        .filter_map(|text| Regex::new(text).ok())
        .collect()
}

/// Where secrets are in `line`.
#[must_use]
pub fn hidden(line: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    for (place, pattern) in BEFORE.iter().enumerate() {
        for found in pattern.find_iter(line) {
            let rest = &line[found.end()..];
            let is_word = NO_PASSWORD.as_ref().is_some_and(|none| none.is_match(rest));
            if matches!(place, 2 | 3) && is_word {
                continue;
            }
            // MySQL's (using password: YES) is none.
            if ["YES)", "NO)", "yes)", "no)"]
                .iter()
                .any(|none| rest.starts_with(none))
            {
                continue;
            }
            let from = found.end() - quote_before(&line[..found.end()]);
            hidden.push(from..from + value(&line[from..]));
        }
    }
    for pattern in SHAPES.iter() {
        for found in pattern.captures_iter(line) {
            hidden.extend(found.get(1).map(|secret| secret.range()));
        }
    }
    hidden
}

/// How many bytes at the end of `before` are the quote that a value begins with.
fn quote_before(before: &str) -> usize {
    if !before.ends_with(['"', '\'']) {
        return 0;
    }
    let inner = &before[..before.len() - 1];
    let is_begin = inner.trim_end_matches('\\').ends_with([' ', '=', ':']);
    if is_begin {
        1 + inner.len() - inner.trim_end_matches('\\').len()
    } else {
        0
    }
}

/// How long the value at the beginning of `text` is: to the quote that ends it, or to the next blank.
fn value(text: &str) -> usize {
    let inner = text.trim_start_matches('\\');
    let depth = text.len() - inner.len();
    let opened = inner.chars().next();
    let closes = match opened {
        Some(quote @ ('"' | '\'' | '`')) => quote,
        Some('{') => '}',
        _ => {
            let end = text.find(char::is_whitespace).unwrap_or(text.len());
            // password=…)" of a sentence.
            return end;
        }
    };
    let begin = depth + 1;
    let bytes = text.as_bytes();
    let mut slashes = 0;
    for (at, byte) in bytes.iter().enumerate().skip(begin) {
        match byte {
            b'\\' => slashes += 1,
            // A quote within is behind one more backslash than the one that began it.
            byte if *byte == closes as u8 && slashes % (2 * (depth + 1)) == depth => {
                // Where the same word goes on it was one within.
                let behind = bytes.get(at + 1);
                if behind.is_none_or(|next| !next.is_ascii_alphanumeric()) {
                    return at + 1;
                }
                slashes = 0;
            }
            _ => slashes = 0,
        }
    }
    text.len()
}

/// The `window` of `text` with `…` for what is hidden in it.
#[must_use]
pub fn masked(text: &str, window: Range<usize>, hidden: &[Range<usize>]) -> String {
    let mut hidden: Vec<_> = hidden
        .iter()
        .map(|range| range.start.max(window.start)..range.end.min(window.end))
        .filter(|range| range.start < range.end)
        .collect();
    hidden.sort_by_key(|range| range.start);
    let mut shown = String::new();
    let mut at = window.start;
    for range in hidden {
        if range.start > at || (range.start == window.start && at == window.start) {
            shown.push_str(&text[at..range.start]);
            shown.push('…');
        }
        at = at.max(range.end);
    }
    shown.push_str(&text[at..window.end]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(line: &str) -> String {
        masked(line, 0..line.len(), &hidden(line))
    }

    #[test]
    fn every_pattern_is_one() {
        assert_eq!((BEFORE.len(), SHAPES.len()), (10, 19));
        assert!(NO_PASSWORD.is_some());
    }

    #[test]
    fn passwords_do_not_show() {
        for line in [
            "mysql://app:hunter2@db.example:3306/shop: Connection refused",
            "mysql+pymysql://app:p@ss:hunter2@db/shop",
            "mysql://app:pa/hunter2@db/shop",
            "mysql://app:pa\"hunter2@db/shop",
            "redis://:hunter2@10.0.0.5:6379/0",
            "postgres://u:hun%2Fter2hunter2@h/db?sslmode=disable",
            "app:hunter2@tcp(10.0.0.5:3306)/shop: dial tcp",
            "scott/hunter2@db.example:1521/x",
            "host=db user=u password=hunter2 dbname=x",
            "host=db user=u password='hun hunter2' dbname=x",
            r#"{"host":"db","password":"hunter2","port":1}"#,
            r#"{"host":"db","password": "a, hunter2", "port":1}"#,
            r#"{"db_pass": "hunter2"}"#,
            r#"{"dbPassword":"hun\"hunter2"}"#,
            r#"{"msg":"{\"password\":\"hun\\\"hunter2\"}"}"#,
            "PGPASSWORD=hunter2 psql",
            "MYSQL_PWD=hunter2 mysql",
            "'password' => 'hunter2',",
            "passwd: hunter2",
            "db_password_2: hunter2",
            "the password is hunter2",
            "password hunter2 was wrong",
            "with password 'hunter2'",
            "Server=db;Uid=u;Pwd=a;hunter2;Database=x",
            "Pwd={hun ter;hunter2}",
            "Authorization: Bearer hunter2hunter2",
            "Authorization: hunter2",
            "authorization: basic hunter2",
            "Basic hunter2=",
            "Cookie: sid=a; other=hunter2",
            "Set-Cookie: sid=hunter2; Path=/",
            "X-Api-Key: hunter2",
            "api-key=hunter2&x=1",
            "?token=hunter2",
            "eyJhbGciOi.hunter2.x",
            "AKIAIOSFODNN7EXAMPLE hunter-2",
            "CREATE USER u IDENTIFIED BY 'hunter2'",
            "mysql -u root -phunter2 -h db",
            "mysql -u root -p'hun hunter2' -h db",
            "mysql --password=hunter2",
            "mariadb-dump --password hunter2 -h db",
            "redis-cli -h db -a hunter2 ping",
            "curl -u app:hunter2 http://db/",
            "client_secret=hunter2",
            "#0 /srv/a.php(3): PDO->__construct('mysql:host=db', 'u', 'hunter2')",
            "#1 /srv/a.php(3): mysqli->real_connect('db', 'u', 'hun'hunter2', 'x')",
            "#1 /srv/a.php(3): Redis->auth('hunter2')",
            "MySQLdb.connect(\"db\", \"u\", \"hunter2\", \"x\")",
            "\"password\",\"hunter2\"",
            "'password', 'hunter2'",
            "<password>hunter2</password>",
            "<property name=\"password\" value=\"hunter2\"/>",
            "AUTH hunter2 x",
            "\"AUTH\" \"default\" \"hunter2\"",
            "CONFIG SET requirepass hunter2 x",
            "CONFIG SET requirepass \"hunter2\" x",
            "SET PASSWORD FOR 'app'@'%' = 'hunter2'",
            "DB_PW=hunter2",
            "user:app pw:hunter2",
            "PHPSESSID=hunter2",
            "csrf=hunter2",
            "REDISCLI_AUTH=hunter2",
            "contraseña: hunter2",
            "пароль: hunter2",
            "密码: hunter2",
            "DriverManager.getConnection(url, \"app\", \"hunter2\")",
            "https://hooks.slack.com/services/T0/B0/hunter2",
        ] {
            let shown = all(line);
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
            "Your password has expired",
            "dial tcp [2001:db8::5]:3306: connect: connection refused",
            "upstream: \"http://10.0.0.1:80/\"",
            "mysql -h db -u root -p",
        ] {
            assert_eq!(all(line), line);
        }
    }

    #[test]
    fn any_text_is_no_panic() {
        use proptest::prelude::*;
        proptest!(|(text in r#"(password|"|'|\\|=|:| |é|://|@|-p|\{|a){0,30}"#)| {
            let hidden = hidden(&text);
            let _ = masked(&text, 0..text.len(), &hidden);
        });
    }
}
