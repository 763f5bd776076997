//! The Kubernetes label-selector syntax.
//!
//! [`parse`] takes what the API server's own parser takes (`k8s.io/apimachinery/pkg/labels`) and refuses what that refuses,
//! so that a selector means the same for manifests as for a cluster. It differs in three points: a selector without any
//! requirement, which would pick everything, is refused; so are `<` and `>`, which the server compares as integers and
//! [`Expression`] cannot express; and so is the character NUL, at which the server stops reading.
//!
//! [`Selector`] matches as the server does: `!=` and `notin` also pick objects without the label.

use std::collections::BTreeSet;

use kube::core::{Expression, Selector};

/// The most bytes of a label's value, and of its key's name part.
const NAME_BYTES_MAX: usize = 63;

/// The most bytes of a DNS subdomain, such as a label key's prefix.
const SUBDOMAIN_BYTES_MAX: usize = 253;

/// Why a text is no selector, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct ParseError {
    /// The position in characters, from 1.
    pub column: usize,
    /// What is there, and what is expected instead; one line.
    pub problem: String,
}

/// Parses a label selector.
///
/// # Errors
///
/// Fails if the text is no selector, or picks everything because it is blank.
pub fn parse(text: &str) -> Result<Selector, ParseError> {
    let mut parser = Parser { text, at: 0 };
    let mut requirements = Vec::new();
    loop {
        requirements.push(parser.requirement()?);
        let token = parser.next();
        match token.text {
            "," => {}
            "" => return Ok(requirements.into_iter().collect()),
            _ => return Err(parser.unexpected(token, "a comma or the end")),
        }
    }
}

/// Whether a name is a lower-case DNS subdomain (RFC 1123), as the API server checks it.
pub(crate) fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= SUBDOMAIN_BYTES_MAX && name.split('.').all(is_dns_part)
}

/// Whether a name is a lower-case DNS label (RFC 1123), as the API server checks it.
pub(crate) fn is_dns_label(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && is_dns_part(name)
}

fn is_dns_part(part: &str) -> bool {
    is_framed(part, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(), b"-")
}

/// Whether a name begins and ends with an outer character and has only outer and inner ones between.
fn is_framed(name: &str, outer: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = name.as_bytes();
    bytes.first().is_some_and(|&byte| outer(byte))
        && bytes.last().is_some_and(|&byte| outer(byte))
        && bytes.iter().all(|byte| outer(*byte) || inner.contains(byte))
}

/// Whether a text is the name part of a label key, or a label value that is not empty.
fn is_label_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && is_framed(name, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

/// Whether a text can be the key of a label, or of an annotation once it is in lower case.
pub(crate) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_dns_subdomain(prefix) && is_label_name(name),
        None => is_label_name(key),
    }
}

/// A symbol, a word, or the end, which is empty.
#[derive(Clone, Copy)]
struct Token<'t> {
    text: &'t str,
    /// Its first byte in the selector.
    at: usize,
}

impl Token<'_> {
    fn is_word(self) -> bool {
        !self.text.is_empty() && !self.text.starts_with(is_symbol)
    }
}

fn is_symbol(character: char) -> bool {
    matches!(character, '=' | '!' | '(' | ')' | ',' | '<' | '>')
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

struct Parser<'t> {
    text: &'t str,
    /// The first byte that has not been read.
    at: usize,
}

impl<'t> Parser<'t> {
    fn peek(&self) -> Token<'t> {
        let rest = self.text[self.at..].trim_start_matches(is_blank);
        let len_bytes = match rest.find(|character| is_symbol(character) || is_blank(character)) {
            Some(0) if rest.starts_with("==") || rest.starts_with("!=") => 2,
            Some(0) => 1,
            Some(word) => word,
            None => rest.len(),
        };
        Token { text: &rest[..len_bytes], at: self.text.len() - rest.len() }
    }

    fn next(&mut self) -> Token<'t> {
        let token = self.peek();
        self.at = token.at + token.text.len();
        token
    }

    /// Takes the next token if it is this one.
    fn take(&mut self, text: &str) -> bool {
        let taken = self.peek().text == text;
        if taken {
            self.next();
        }
        taken
    }

    fn requirement(&mut self) -> Result<Expression, ParseError> {
        let absent = self.take("!");
        let key = self.key()?;
        if absent {
            return Ok(Expression::DoesNotExist(key));
        }
        if matches!(self.peek().text, "" | ",") {
            return Ok(Expression::Exists(key));
        }
        let operator = self.next();
        match operator.text {
            "=" | "==" => Ok(Expression::Equal(key, self.value()?)),
            "!=" => Ok(Expression::NotEqual(key, self.value()?)),
            "in" => Ok(Expression::In(key, self.values()?)),
            "notin" => Ok(Expression::NotIn(key, self.values()?)),
            "<" | ">" => Err(self.error(
                operator,
                format!("{:?} compares numbers, which is not supported; list the values with \"in\"", operator.text),
            )),
            _ => Err(self.unexpected(operator, "an operator (=, ==, !=, in, notin), a comma or the end")),
        }
    }

    fn key(&mut self) -> Result<String, ParseError> {
        let token = self.next();
        if !token.is_word() {
            return Err(self.unexpected(token, "a label key"));
        }
        if !is_label_key(token.text) {
            let expected = "a label key: an optional DNS name and a slash, then at most 63 letters, digits, \"-\", \"_\" \
                            and \".\" that begin and end with a letter or digit";
            return Err(self.unexpected(token, expected));
        }
        Ok(token.text.to_owned())
    }

    /// The value after `=`, `==` or `!=`; none is the empty value.
    fn value(&mut self) -> Result<String, ParseError> {
        match self.peek().text {
            "" | "," => Ok(String::new()),
            _ => self.written_value("a label value"),
        }
    }

    /// The values after `in` or `notin`. What is missing between two separators is the empty value.
    fn values(&mut self) -> Result<BTreeSet<String>, ParseError> {
        let open = self.next();
        if open.text != "(" {
            return Err(self.unexpected(open, "\"(\""));
        }
        let mut values = BTreeSet::new();
        loop {
            values.insert(match self.peek().text {
                "," | ")" => String::new(),
                _ => self.written_value("a label value, a comma or \")\"")?,
            });
            let separator = self.next();
            match separator.text {
                "," => {}
                ")" => return Ok(values),
                _ => return Err(self.unexpected(separator, "a comma or \")\"")),
            }
        }
    }

    fn written_value(&mut self, expected: &str) -> Result<String, ParseError> {
        let token = self.next();
        if !token.is_word() {
            return Err(self.unexpected(token, expected));
        }
        if !is_label_name(token.text) {
            let expected = "a label value: at most 63 letters, digits, \"-\", \"_\" and \".\" that begin and end with a \
                            letter or digit";
            return Err(self.unexpected(token, expected));
        }
        Ok(token.text.to_owned())
    }

    fn unexpected(&self, token: Token, expected: &str) -> ParseError {
        let problem = match token.text {
            "" => format!("found the end, expected {expected}"),
            text => format!("found {text:?}, expected {expected}"),
        };
        self.error(token, problem)
    }

    fn error(&self, token: Token, problem: String) -> ParseError {
        ParseError { column: self.text[..token.at].chars().count() + 1, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt;
    use proptest::prelude::*;

    use super::*;

    fn values(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_form_of_requirement_is_parsed() {
        let key = || "k".to_owned();
        let cases = [
            ("k", vec![Expression::Exists(key())]),
            ("!k", vec![Expression::DoesNotExist(key())]),
            (" ! k\t", vec![Expression::DoesNotExist(key())]),
            ("k=v", vec![Expression::Equal(key(), "v".into())]),
            ("k==v", vec![Expression::Equal(key(), "v".into())]),
            ("k \n= \r v", vec![Expression::Equal(key(), "v".into())]),
            ("k!=v", vec![Expression::NotEqual(key(), "v".into())]),
            ("k=", vec![Expression::Equal(key(), String::new())]),
            ("k==,k!=", vec![Expression::Equal(key(), String::new()), Expression::NotEqual(key(), String::new())]),
            ("k in (a,b)", vec![Expression::In(key(), values(&["a", "b"]))]),
            ("k in(a , b,a)", vec![Expression::In(key(), values(&["a", "b"]))]),
            ("k notin (a)", vec![Expression::NotIn(key(), values(&["a"]))]),
            ("k in ()", vec![Expression::In(key(), values(&[""]))]),
            ("k in (,)", vec![Expression::In(key(), values(&[""]))]),
            ("k in (,a)", vec![Expression::In(key(), values(&["", "a"]))]),
            ("k in (a,,b)", vec![Expression::In(key(), values(&["", "a", "b"]))]),
            ("k notin (a,)", vec![Expression::NotIn(key(), values(&["", "a"]))]),
            ("k=in", vec![Expression::Equal(key(), "in".into())]),
            ("k in (in,notin)", vec![Expression::In(key(), values(&["in", "notin"]))]),
            ("in in (in)", vec![Expression::In("in".into(), values(&["in"]))]),
            ("notin,!in", vec![Expression::Exists("notin".into()), Expression::DoesNotExist("in".into())]),
            (
                "example.com/Part_of.it=v-1.0_x",
                vec![Expression::Equal("example.com/Part_of.it".into(), "v-1.0_x".into())],
            ),
            (
                "a,b , c=d",
                vec![
                    Expression::Exists("a".into()),
                    Expression::Exists("b".into()),
                    Expression::Equal("c".into(), "d".into()),
                ],
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), Ok(expected.into_iter().collect()), "{text:?}");
        }
    }

    #[test]
    fn an_error_names_the_place_and_what_is_expected_there() {
        let cases = [
            ("", 1, "found the end, expected a label key"),
            ("  \t", 4, "found the end, expected a label key"),
            (",a", 1, "found \",\", expected a label key"),
            ("a,", 3, "found the end, expected a label key"),
            ("a,,b", 3, "found \",\", expected a label key"),
            ("!", 2, "found the end, expected a label key"),
            ("!!a", 2, "found \"!\", expected a label key"),
            ("!=a", 1, "found \"!=\", expected a label key"),
            ("!a=b", 3, "found \"=\", expected a comma or the end"),
            ("!a in (b)", 4, "found \"in\", expected a comma or the end"),
            ("a b", 3, "found \"b\", expected an operator (=, ==, !=, in, notin), a comma or the end"),
            ("a===b", 4, "found \"=\", expected a label value"),
            ("a=b c", 5, "found \"c\", expected a comma or the end"),
            ("a=(b)", 3, "found \"(\", expected a label value"),
            ("a in b", 6, "found \"b\", expected \"(\""),
            ("a in", 5, "found the end, expected \"(\""),
            ("a in (b", 8, "found the end, expected a comma or \")\""),
            ("a in (b c)", 9, "found \"c\", expected a comma or \")\""),
            ("a in (", 7, "found the end, expected a label value, a comma or \")\""),
            ("a in (b,=)", 9, "found \"=\", expected a label value, a comma or \")\""),
            ("a in (b))", 9, "found \")\", expected a comma or the end"),
            ("a>5", 2, "\">\" compares numbers, which is not supported; list the values with \"in\""),
            ("ä=b", 1, "found \"ä\", expected a label key: an optional DNS name"),
            ("a=b,c=ö\n", 7, "found \"ö\", expected a label value: at most 63 letters"),
            ("a=\u{0}", 3, "found \"\\0\", expected a label value: at most 63 letters"),
        ];
        for (text, column, problem) in cases {
            let error = parse(text).expect_err(text);
            assert_eq!(error.column, column, "{text:?}: {error}");
            assert!(error.problem.starts_with(problem), "{text:?}: {error}");
            assert!(!error.to_string().contains('\n'), "{text:?}: {error}");
        }
    }

    #[test]
    fn keys_and_values_are_held_to_the_limits_of_the_server() {
        let long = |count: usize| "x".repeat(count);
        let good = [
            long(63),
            format!("{}/{}", long(253), long(63)),
            "a.b-c.d/x".to_owned(),
            format!("k={}", long(63)),
            "k=0".to_owned(),
        ];
        for text in good {
            assert!(parse(&text).is_ok(), "{text:?}");
        }
        let bad = [
            long(64),
            format!("{}/x", long(254)),
            format!("a/{}", long(64)),
            format!("k={}", long(64)),
            format!("k in ({})", long(64)),
            "A/x".to_owned(),
            "a_b/x".to_owned(),
            "a..b/x".to_owned(),
            "/x".to_owned(),
            "a/".to_owned(),
            "a/b/c".to_owned(),
            "-a".to_owned(),
            "a-".to_owned(),
            "k=-v".to_owned(),
            "k=v.".to_owned(),
            "k=a/b".to_owned(),
            "k=a:b".to_owned(),
        ];
        for text in bad {
            assert!(parse(&text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn negative_requirements_also_pick_objects_without_the_label() {
        let labels = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        let cases = [
            ("k!=v", [true, false, true, true]),
            ("k notin (v)", [true, false, true, true]),
            ("k notin ()", [true, true, true, false]),
            ("k", [false, true, true, true]),
            ("!k", [true, false, false, false]),
            ("k=", [false, false, false, true]),
            ("k in (v,w)", [false, true, true, false]),
            ("k,k!=v", [false, false, true, true]),
        ];
        let objects = [labels(&[]), labels(&[("k", "v")]), labels(&[("k", "w")]), labels(&[("k", "")])];
        for (text, expected) in cases {
            let selector = parse(text).expect(text);
            assert_eq!(objects.each_ref().map(|labels| selector.matches(labels)), expected, "{text:?}");
        }
    }

    fn any_key() -> impl Strategy<Value = String> {
        "([a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?(\\.[a-z]{1,5})?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?"
    }

    fn any_value() -> impl Strategy<Value = String> {
        "([A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?)?"
    }

    fn any_expression() -> impl Strategy<Value = Expression> {
        let some_values = || proptest::collection::btree_set(any_value(), 1..4);
        prop_oneof![
            any_key().prop_map(Expression::Exists),
            any_key().prop_map(Expression::DoesNotExist),
            (any_key(), any_value()).prop_map(|(key, value)| Expression::Equal(key, value)),
            (any_key(), any_value()).prop_map(|(key, value)| Expression::NotEqual(key, value)),
            (any_key(), some_values()).prop_map(|(key, values)| Expression::In(key, values)),
            (any_key(), some_values()).prop_map(|(key, values)| Expression::NotIn(key, values)),
        ]
    }

    proptest! {
        #[test]
        fn a_selector_that_was_printed_is_parsed_to_itself(
            expressions in proptest::collection::vec(any_expression(), 1..5),
        ) {
            let selector: Selector = expressions.into_iter().collect();
            prop_assert_eq!(parse(&selector.to_string()), Ok(selector));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,40}|[a-z!=(), \n<>/é.-]{0,40}") {
            if let Err(error) = parse(&text) {
                prop_assert!(!error.to_string().contains('\n'));
                prop_assert!(error.column <= text.chars().count() + 1);
            }
        }
    }
}
