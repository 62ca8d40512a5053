//! What files say in other words: JSON as Python writes it, tensors under names of other versions.

use std::collections::HashMap;

use candle_core::Tensor;

use crate::error::Result;

/// JSON as Python writes it: `NaN`, `Infinity` and `-Infinity` outside strings, which diffusers' scheduler
/// configs contain, are read as null.
///
/// # Errors
/// If it is no JSON otherwise, or a value is of the wrong type.
pub fn parse_json<T: serde::de::DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    let mut plain = String::with_capacity(text.len());
    for (i, part) in text.split('"').enumerate() {
        // Quotes alternate between inside and outside, but for escaped ones inside.
        let outside = i % 2 == 0;
        if i > 0 {
            plain.push('"');
        }
        match outside {
            true => {
                plain += &part.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
            }
            false => plain += part,
        }
    }
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&plain))
}

/// Tensors under the names that the networks here ask for: the VAE's attention as newer diffusers
/// calls it (1×1 kernels of linear layers flattened), the text encoder as transformers before 5 does.
pub(super) fn renamed(tensors: HashMap<String, Tensor>) -> Result<HashMap<String, Tensor>> {
    const OLD: [(&str, &str); 4] =
        [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];
    let bare_text = tensors.contains_key("embeddings.token_embedding.weight");
    let rename = |(name, tensor): (String, Tensor)| {
        if bare_text && !name.starts_with("text_") {
            return Ok((format!("text_model.{name}"), tensor));
        }
        let old = OLD.iter().find(|(old, _)| name.contains("attentions.") && name.contains(old));
        let Some((old, new)) = old else { return Ok((name, tensor)) };
        let tensor = match *tensor.dims() {
            [o, i, 1, 1] => tensor.reshape((o, i))?,
            _ => tensor,
        };
        Ok((name.replace(old, new), tensor))
    };
    tensors.into_iter().map(rename).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_infinities_of_python_are_read_as_null() {
        let text = r#"{"lambda_min_clipped": -Infinity, "b": [NaN, Infinity], "name": "NaN"}"#;
        let value: serde_json::Value = parse_json(text).unwrap();
        let want = serde_json::json!({"lambda_min_clipped": null, "b": [null, null], "name": "NaN"});
        assert_eq!(value, want);
        assert!(parse_json::<serde_json::Value>("{Infinity}").is_err());
        let quoted: serde_json::Value = parse_json(r#"{"a": "\" NaN"}"#).unwrap();
        assert_eq!(quoted["a"], "\" NaN");
    }
}
