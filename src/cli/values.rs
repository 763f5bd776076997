//! One value of an option: from its text to what it means. An error here names the value and the remedy; the option is
//! named where the error is shown.

use std::time::Duration;

use regex_lite::Regex;

use crate::bump::process;
use crate::bump::signal::{Signal, SignalError};
use crate::command;
use crate::config::Labels;
use crate::object::Kind;
use crate::source::selector;
use crate::telemetry::endpoints::Address;

/// The value the way an error shows it: on one line, whatever is in it.
pub(super) fn quoted(value: &str) -> String {
    let escaped: String =
        value.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect();
    format!("`{escaped}`")
}

pub(super) fn labels(text: &str) -> Result<Labels, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty and would select everything; write a selector such as app=web".to_owned());
    }
    let selector = selector::parse(text).map_err(|error| format!("{}: {error}", quoted(text)))?;
    Ok(Labels { text: text.to_owned(), selector })
}

pub(super) fn kind(text: &str) -> Result<Kind, String> {
    let text = text.trim();
    let found = [Kind::ConfigMap, Kind::Secret].into_iter().find(|kind| kind.resource() == text);
    found.ok_or_else(|| {
        format!("{} is not a kind it follows; write configmaps, secrets, or both: configmaps,secrets", quoted(text))
    })
}

/// A share of a whole, from 0 to 1.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let text = text.trim();
    let (number, whole) = text.strip_suffix('%').map_or((text, 1.0), |percent| (percent.trim_end(), 100.0));
    match number.parse::<f64>().map(|number| number / whole) {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err(format!("{} is no share of the files; write one from 0% to 100%, or from 0 to 1", quoted(text))),
    }
}

pub(super) fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("there is an empty name in it; write the names of objects, as in --names web,api".to_owned());
    }
    if selector::is_dns_subdomain(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} cannot be the name of an object; one has at most 253 lower-case letters, digits, - and ., \
         with a letter or digit at either end of each dotted part",
        quoted(text)
    ))
}

pub(super) fn namespace(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("there is an empty name in it; write the names of namespaces, or --all-namespaces".to_owned());
    }
    if selector::is_dns_label(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{} cannot be the name of a namespace; one has at most 63 lower-case letters, digits and -, \
         with a letter or digit at either end",
        quoted(text)
    ))
}

pub(super) fn context(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it is empty; write a name that `kubectl config get-contexts` shows, or leave it out".to_owned());
    }
    Ok(text.to_owned())
}

pub(super) fn annotation(text: &str) -> Result<String, String> {
    let text = text.trim();
    // The API server, too, lowers the key of an annotation before it looks at it.
    if selector::is_label_key(&text.to_ascii_lowercase()) {
        return Ok(text.to_owned());
    }
    Err(format!("{} cannot be the key of an annotation; write one such as example.com/folder", quoted(text)))
}

pub(super) fn address(text: &str) -> Result<Address, String> {
    let no_address =
        "is no address to listen on; write :8080, or one of this machine as in 127.0.0.1:8080 or [::1]:8080";
    Address::parse(text.trim()).ok_or_else(|| format!("{} {no_address}", quoted(text)))
}

/// The spellings that Go's `strconv.ParseBool` takes, as the Go configbump did.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        text => Err(format!("{} is neither yes nor no; write true or false", quoted(text))),
    }
}

/// The words of a command. A type of its own, since clap takes a list for several values.
#[derive(Clone, Debug)]
pub(super) struct Words(pub Vec<String>);

pub(super) fn command(text: &str) -> Result<Words, String> {
    command::parse(text).map(Words)
}

pub(super) fn signal(text: &str) -> Result<Signal, String> {
    text.parse().map_err(|error: SignalError| error.to_string())
}

pub(super) fn expression(text: &str) -> Result<Regex, String> {
    process::parse_expression(text)
        .map_err(|error| format!("{}: {error}; write an expression such as '^nginx: master'", quoted(text)))
}

pub(super) fn pid(text: &str) -> Result<u32, String> {
    match parent_pid(text)? {
        0 => Err("`0` is no process; write its PID, or find it by --process-command".to_owned()),
        pid => Ok(pid),
    }
}

/// As a parent, 0 stands for one outside of the PID namespace.
pub(super) fn parent_pid(text: &str) -> Result<u32, String> {
    let pid = text.trim().parse().ok().filter(|pid| i32::try_from(*pid).is_ok());
    pid.ok_or_else(|| format!("{} is no PID; write a number such as 17", quoted(text)))
}

/// A limit for something that takes time.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("{} leaves no time; write one such as 30s", quoted(text))),
        limit => Ok(limit),
    }
}

/// `100ms`, `2s`, `5m`, `1h`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit_ms = match &text[digits..] {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "" if text == "0" => Some(0),
        _ => None,
    };
    let count = text[..digits].parse::<u64>().ok();
    let ms = count.zip(unit_ms).and_then(|(count, unit_ms)| count.checked_mul(unit_ms));
    // A year is more than anybody waits, and leaves room for sums.
    ms.filter(|ms| *ms <= 366 * 24 * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{} is no time; write a whole number with ms, s, m or h, as in 500ms", quoted(text)))
}

pub(super) fn mode(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let number = u32::from_str_radix(digits, 8).ok().filter(|_| !digits.starts_with('+'));
    match number {
        None => Err(format!("{} is no octal number; write the permissions as in 0644", quoted(text))),
        Some(mode) if mode > 0o777 => {
            Err(format!("{} has more than permissions; write three octal digits as in 0644", quoted(text)))
        }
        Some(mode) if mode & 0o400 == 0 => Err(format!(
            "{} keeps configbump from reading its own files; let the owner read, as in 0{:03o}",
            quoted(text),
            mode | 0o400
        )),
        Some(mode) => Ok(mode),
    }
}
