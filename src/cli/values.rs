//! One value of an option: from its text to what it means. An error here names the value and the remedy; the option is
//! named where the error is shown.

use crate::config::Labels;
use crate::object::Kind;
use crate::source::selector;

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

/// The spellings that Go's `strconv.ParseBool` takes, as the Go configbump did.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        text => Err(format!("{} is neither yes nor no; write true or false", quoted(text))),
    }
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
