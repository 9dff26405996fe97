//! JSON as text in one form for each value: names in order, no spaces, numbers as they were written.
//!
//! In: text. Out: that form, or what is wrong with it. Numbers are never taken for floats, so none is rounded; a
//! name that is there twice is refused, because whichever value stayed the other would be lost. Absent: a tree of values,
//! which nothing here needs.

use std::collections::BTreeMap;

use merganser_plugin_sdk::Rejection;

/// Lists and objects within one another.
const DEPTH_MAX: usize = 122;

/// Reads JSON from the front of a text.
pub(crate) struct Json<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Json<'a> {
    pub(crate) fn new(text: &'a str) -> Json<'a> {
        Json { text, at: 0 }
    }

    /// The next byte that is no space.
    pub(crate) fn peek(&mut self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.at..];
        self.at += rest.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
        self.text.as_bytes().get(self.at).copied()
    }

    /// Takes this byte, if it is the next.
    pub(crate) fn takes(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// Nothing may follow.
    pub(crate) fn end(&mut self) -> Result<(), Rejection> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.unexpected()),
        }
    }

    pub(crate) fn unexpected(&self) -> Rejection {
        Rejection::malformed(format!("not JSON at byte {}", self.at))
    }

    /// A value, written to `out`.
    pub(crate) fn value(&mut self, out: &mut String, depth: usize) -> Result<(), Rejection> {
        if depth > DEPTH_MAX {
            return Err(Rejection::malformed(format!("nested deeper than {DEPTH_MAX} lists and objects")));
        }
        match self.peek() {
            Some(b'{') => {
                out.push('{');
                for (n, (name, value)) in self.fields(depth)?.into_iter().enumerate() {
                    out.push_str(if n > 0 { "," } else { "" });
                    write_text(out, &name);
                    out.push(':');
                    out.push_str(&value);
                }
                out.push('}');
            }
            Some(b'[') => {
                self.at += 1;
                out.push('[');
                let mut is_first = true;
                while !self.takes(b']') {
                    if !is_first {
                        self.comma()?;
                        out.push(',');
                    }
                    is_first = false;
                    self.value(out, depth + 1)?;
                }
                out.push(']');
            }
            Some(b'"') => write_text(out, &self.string()?),
            Some(b'-' | b'0'..=b'9') => out.push_str(self.number()?),
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word));
                let word = word.ok_or_else(|| self.unexpected())?;
                self.at += word.len();
                out.push_str(word);
            }
        }
        Ok(())
    }

    /// An object's fields, each value in its one form.
    pub(crate) fn fields(&mut self, depth: usize) -> Result<BTreeMap<String, String>, Rejection> {
        if !self.takes(b'{') {
            return Err(self.unexpected());
        }
        let mut fields = BTreeMap::new();
        while !self.takes(b'}') {
            if !fields.is_empty() {
                self.comma()?;
            }
            let name = self.string()?;
            if !self.takes(b':') {
                return Err(self.unexpected());
            }
            let mut value = String::new();
            self.value(&mut value, depth + 1)?;
            if fields.contains_key(&name) {
                return Err(Rejection::malformed(format!("field {name:?} is there twice")));
            }
            fields.insert(name, value);
        }
        Ok(fields)
    }

    pub(crate) fn comma(&mut self) -> Result<(), Rejection> {
        match self.takes(b',') {
            // A comma before the end is none between two.
            true if !matches!(self.peek(), Some(b']' | b'}') | None) => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    /// A text in quotes, its escapes resolved.
    pub(crate) fn string(&mut self) -> Result<String, Rejection> {
        if self.peek() != Some(b'"') {
            return Err(self.unexpected());
        }
        let rest = &self.text.as_bytes()[self.at..];
        let (mut length, mut escaped) = (1, false);
        while let Some(&byte) = rest.get(length) {
            length += 1;
            match byte {
                b'"' if !escaped => break,
                b'\\' => escaped = !escaped,
                _ => escaped = false,
            }
        }
        let text = serde_json::from_str(&self.text[self.at..self.at + length]);
        let text = text.map_err(|_| self.unexpected())?;
        self.at += length;
        Ok(text)
    }

    fn number(&mut self) -> Result<&'a str, Rejection> {
        let rest = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let sign = usize::from(rest[0] == b'-');
        let whole = digits(sign);
        let mut end = sign + whole;
        let mut is_number = whole == 1 || (whole > 1 && rest[sign] != b'0');
        if rest.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            is_number &= fraction > 0;
            end += 1 + fraction;
        }
        if matches!(rest.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(rest.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            is_number &= exponent > 0;
            end += 1 + sign + exponent;
        }
        if !is_number {
            return Err(self.unexpected());
        }
        let number = &self.text[self.at..self.at + end];
        self.at += end;
        Ok(number)
    }
}

/// A text with quotes and escapes.
pub(crate) fn write_text(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// The one form of a value.
pub(crate) fn canonical(text: &str) -> Result<String, Rejection> {
    let (mut json, mut out) = (Json::new(text), String::with_capacity(text.len()));
    json.value(&mut out, 1)?;
    json.end()?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_one_form_and_numbers_stay_as_they_are() {
        for (text, form) in [
            (" { \"b\" : [ 1 , 2 ] , \"a\" : null } ", r#"{"a":null,"b":[1,2]}"#),
            (r#""\u0041\ud83e\udd86\/""#, "\"A\u{1f986}/\""),
            ("18446744073709551616", "18446744073709551616"),
            ("-9223372036854775809", "-9223372036854775809"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("1e-400", "1e-400"),
            ("0.1000000000000000055", "0.1000000000000000055"),
            ("-0", "-0"),
            ("1E+2", "1E+2"),
            ("[]", "[]"),
            ("{}", "{}"),
        ] {
            assert_eq!(canonical(text).as_deref(), Ok(form), "{text}");
            assert_eq!(canonical(form).as_deref(), Ok(form), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_or_says_a_name_twice_is_refused() {
        for odd in [
            "",
            " ",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "NaN",
            "nul",
            "\"",
            "\"\\ud800\"",
            "\"\n\"",
            "\"\\x\"",
            "1 2",
            "[",
            "{\"a\":",
            "'a'",
        ] {
            assert!(canonical(odd).is_err(), "{odd}");
        }
        let twice = canonical(r#"{"x":{"a":1,"a":2}}"#).unwrap_err();
        assert!(twice.message.contains("\"a\" is there twice"), "{twice:?}");
        let deep = canonical(&format!("{}{}", "[".repeat(200_000), "]".repeat(200_000))).unwrap_err();
        assert!(deep.message.contains("nested deeper"), "{deep:?}");
    }
}
