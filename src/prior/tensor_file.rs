//! Tensors in `.safetensors` files, read one after the other, so that a file of many gigabytes takes the
//! memory of its tensors and of the largest one again, not twice its size.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use candle_core::safetensors::Load as _;
use candle_core::{Device, Tensor};
use safetensors::tensor::{Metadata, TensorView};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Headers longer than this are refused, as the format says.
const LONGEST_HEADER: u64 = 100_000_000;

/// Reads all tensors of a `.safetensors` file.
///
/// # Errors
/// [`Error::Io`] or [`Error::File`] with a hint if the file is truncated, corrupt, a pickle or text.
pub fn read_safetensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    read(BufReader::new(file), length, path)
}

/// [`read_safetensors`] from bytes; `path` is only named in errors.
///
/// # Errors
/// As [`read_safetensors`].
pub fn parse_safetensors(bytes: &[u8], path: &Path) -> Result<HashMap<String, Tensor>> {
    read(Cursor::new(bytes), bytes.len() as u64, path)
}

/// Numbers in a `.safetensors` file, told by its header.
///
/// # Errors
/// As [`read_safetensors`].
pub(super) fn count(path: &Path) -> Result<u64> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    counted(BufReader::new(file), length, path)
}

/// [`count`] from bytes.
pub(super) fn count_in(bytes: &[u8], path: &Path) -> Result<u64> {
    counted(Cursor::new(bytes), bytes.len() as u64, path)
}

fn counted<R: Read + Seek>(mut source: R, length: u64, path: &Path) -> Result<u64> {
    refuse_pickle(&mut source, path)?;
    let header = header(&mut source, length).map_err(|why| damaged(path, length, why))?;
    let numbers = |name: &String| Some(header.info(name)?.shape.iter().product::<usize>() as u64);
    Ok(header.offset_keys().iter().filter_map(numbers).sum())
}

fn damaged(path: &Path, length: u64, why: String) -> Error {
    Error::file(path, format!("not a readable safetensors file ({length} bytes): {why}"))
        .hint("the file is truncated or corrupt: fetch or train it again")
}

/// Writes tensors to `path` by a temporary file and a rename.
///
/// # Errors
/// If the folder is missing or full.
pub fn write_safetensors(path: &Path, tensors: &HashMap<String, Tensor>) -> Result<()> {
    let temporary = path.with_extension("partial");
    candle_core::safetensors::save(tensors, &temporary)?;
    std::fs::rename(&temporary, path).map_err(|e| Error::io(path, e))
}

/// Feeds a whole file to `hash`.
///
/// # Errors
/// If it cannot be read.
pub(super) fn hash_file(hash: &mut Sha256, path: &Path) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    std::io::copy(&mut file, hash).map(drop).map_err(|e| Error::io(path, e))
}

/// SHA-256 of a file, hexadecimal.
///
/// # Errors
/// If it cannot be read.
pub(super) fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    hash_file(&mut hash, path)?;
    Ok(format!("{:x}", hash.finalize()))
}

fn read<R: Read + Seek>(mut source: R, length: u64, path: &Path) -> Result<HashMap<String, Tensor>> {
    refuse_pickle(&mut source, path)?;
    let damaged = |why: String| damaged(path, length, why);
    let header = header(&mut source, length).map_err(damaged)?;
    let mut bytes = Vec::new();
    let mut tensors = HashMap::new();
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else { continue };
        bytes.resize(info.data_offsets.1 - info.data_offsets.0, 0);
        source.read_exact(&mut bytes).map_err(|e| damaged(e.to_string()))?;
        let view = TensorView::new(info.dtype, info.shape.clone(), &bytes);
        let tensor = view.map_err(|e| damaged(e.to_string()))?.load(&Device::Cpu);
        tensors.insert(name, tensor.map_err(|e| damaged(e.to_string()))?);
    }
    Ok(tensors)
}

/// The header, with the source left at the first tensor.
fn header<R: Read>(source: &mut R, length: u64) -> std::result::Result<Metadata, String> {
    let mut size = [0; 8];
    source.read_exact(&mut size).map_err(|_| "no header".to_owned())?;
    let size = u64::from_le_bytes(size);
    let data = length.checked_sub(8).and_then(|rest| rest.checked_sub(size));
    let Some(data) = data.filter(|_| size <= LONGEST_HEADER) else {
        return Err(format!("its header claims {size} bytes"));
    };
    let mut text = vec![0; size as usize];
    source.read_exact(&mut text).map_err(|e| e.to_string())?;
    let header: Metadata = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
    match header.data_len() as u64 == data {
        true => Ok(header),
        false => Err(format!("its tensors take {} bytes, there are {data}", header.data_len())),
    }
}

fn refuse_pickle<R: Read + Seek>(source: &mut R, path: &Path) -> Result<()> {
    let mut first = Vec::new();
    source.by_ref().take(9).read_to_end(&mut first).map_err(|e| Error::io(path, e))?;
    source.seek(SeekFrom::Start(0)).map_err(|e| Error::io(path, e))?;
    // A header of 640 bytes makes a safetensors file start like a pickle of protocol 2.
    let named = first.get(8) == Some(&b'{');
    if first.starts_with(b"PK\x03\x04") || (first.starts_with(b"\x80\x02") && !named) {
        return Err(Error::file(path, "is a pickle checkpoint, which can run code when loaded").hint(
            "convert it where you trust it: python -c \"import torch,safetensors.torch as s; \
             s.save_file(torch.load('model.ckpt', weights_only=True), 'model.safetensors')\"",
        ));
    }
    Ok(())
}
