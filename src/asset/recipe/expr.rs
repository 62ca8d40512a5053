//! Numbers of a recipe: literals, or strings such as `"$beak * 0.5 + 0.1"`.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

/// Values of the parameters of one build.
pub(super) type Params = BTreeMap<String, f32>;

/// Parentheses and minus signs may nest this deep.
const MAX_DEPTH: usize = 32;

/// A number, possibly depending on parameters.
#[derive(Debug, Clone)]
pub(super) enum Num {
    Const(f32),
    Param(String),
    Negative(Box<Num>),
    Binary(char, Box<Num>, Box<Num>),
}

impl Num {
    /// The value under `params`; the error says what is unknown or not finite.
    pub(super) fn value(&self, params: &Params) -> Result<f32, String> {
        let v = match self {
            Self::Const(v) => *v,
            Self::Param(name) => *params.get(name).ok_or_else(|| format!("unknown parameter `${name}`"))?,
            Self::Negative(a) => -a.value(params)?,
            Self::Binary(op, a, b) => {
                let (a, b) = (a.value(params)?, b.value(params)?);
                match op {
                    '+' => a + b,
                    '-' => a - b,
                    '*' => a * b,
                    _ => a / b,
                }
            }
        };
        if v.is_finite() && v.abs() <= 1e4 { Ok(v) } else { Err(format!("the number {v} is out of range")) }
    }

    /// Parses `sum := product (('+'|'-') product)*`, `product := atom (('*'|'/') atom)*`,
    /// `atom := number | '$'name | '-' atom | '(' sum ')'`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text, depth: 0 };
        let num = parser.sum()?;
        match parser.peek() {
            None => Ok(num),
            Some(c) => Err(format!("unexpected `{c}` in `{text}`")),
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, n: usize) -> &str {
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        head
    }

    fn sum(&mut self) -> Result<Num, String> {
        let mut left = self.product()?;
        while let Some(op @ ('+' | '-')) = self.peek() {
            self.take(1);
            left = Num::Binary(op, Box::new(left), Box::new(self.product()?));
        }
        Ok(left)
    }

    fn product(&mut self) -> Result<Num, String> {
        let mut left = self.atom()?;
        while let Some(op @ ('*' | '/')) = self.peek() {
            self.take(1);
            left = Num::Binary(op, Box::new(left), Box::new(self.atom()?));
        }
        Ok(left)
    }

    fn atom(&mut self) -> Result<Num, String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("the expression is nested too deeply".into());
        }
        let num = match self.peek() {
            Some('-') => {
                self.take(1);
                Num::Negative(Box::new(self.atom()?))
            }
            Some('(') => {
                self.take(1);
                let inner = self.sum()?;
                if self.peek() != Some(')') {
                    return Err("a `(` is not closed".into());
                }
                self.take(1);
                inner
            }
            Some('$') => {
                self.take(1);
                let n = span(self.rest, |c| c.is_ascii_alphanumeric() || c == '_');
                Num::Param(self.take(n).to_owned())
            }
            Some(c) if c.is_ascii_digit() || c == '.' => {
                let n = span(self.rest, |c| c.is_ascii_digit() || c == '.');
                let text = self.take(n);
                Num::Const(text.parse().map_err(|_| format!("`{text}` is not a number"))?)
            }
            Some(c) => return Err(format!("unexpected `{c}` where a number should be")),
            None => return Err("the expression ends too early".into()),
        };
        self.depth -= 1;
        Ok(num)
    }
}

/// Length in bytes of the prefix of ASCII characters that `keep` accepts.
fn span(text: &str, keep: impl Fn(char) -> bool) -> usize {
    text.find(|c| !keep(c)).unwrap_or(text.len())
}

impl<'de> Deserialize<'de> for Num {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumVisitor;
        impl Visitor<'_> for NumVisitor {
            type Value = Num;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or an expression such as \"$width * 0.5\"")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<Num, E> {
                Ok(Num::Const(v as f32))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<Num, E> {
                Ok(Num::Const(v as f32))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<Num, E> {
                Num::parse(v).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(NumVisitor)
    }
}

/// Three numbers; in a file one number stands for three equal ones.
#[derive(Debug, Clone)]
pub(super) struct Triple(pub(super) [Num; 3]);

impl Triple {
    /// The vector under `params`.
    pub(super) fn value(&self, params: &Params) -> Result<glam::Vec3, String> {
        let [x, y, z] = &self.0;
        Ok(glam::Vec3::new(x.value(params)?, y.value(params)?, z.value(params)?))
    }
}

impl<'de> Deserialize<'de> for Triple {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match List::deserialize(deserializer)?.0 {
            list if list.len() == 1 => Ok(Self([list[0].clone(), list[0].clone(), list[0].clone()])),
            list => <[Num; 3]>::try_from(list)
                .map(Self)
                .map_err(|l| de::Error::invalid_length(l.len(), &"one number or [x, y, z]")),
        }
    }
}

/// A list of numbers; in a file one number stands for a list of one.
#[derive(Debug, Clone)]
pub(super) struct List(pub(super) Vec<Num>);

impl List {
    /// The values under `params`.
    pub(super) fn values(&self, params: &Params) -> Result<Vec<f32>, String> {
        self.0.iter().map(|n| n.value(params)).collect()
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, an expression or a list of them")
            }
            fn visit_i64<E: de::Error>(self, v: i64) -> Result<List, E> {
                Ok(List(vec![Num::Const(v as f32)]))
            }
            fn visit_f64<E: de::Error>(self, v: f64) -> Result<List, E> {
                Ok(List(vec![Num::Const(v as f32)]))
            }
            fn visit_str<E: de::Error>(self, v: &str) -> Result<List, E> {
                Ok(List(vec![Num::parse(v).map_err(E::custom)?]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut list = Vec::new();
                while let Some(n) = seq.next_element()? {
                    list.push(n);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn eval(text: &str) -> Result<f32, String> {
        Num::parse(text)?.value(&Params::from([("w".into(), 0.5)]))
    }

    #[test]
    fn arithmetic_follows_precedence() {
        assert_eq!(eval("1 + 2 * $w - 4 / 8"), Ok(1.5));
        assert_eq!(eval("-(1 - 3) * -$w"), Ok(-1.0));
        assert_eq!(eval("10 - 3 - 2"), Ok(5.0));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "1 +", "$", "$nobody", "2 2", "(1", "1 / 0", "1..2", "é", "99999999"] {
            assert!(eval(text).is_err(), "{text}");
        }
        assert!(eval(&"(".repeat(100_000)).is_err() && eval(&"-".repeat(100_000)).is_err());
    }
}
