//! Rows of Python to PostgreSQL's binary COPY (https://www.postgresql.org/docs/current/sql-copy.html).

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyList, PyString, PyTuple};

use super::guarded;

/// The size of a piece, after which the next one begins. One row may make it larger.
const PIECE: usize = 512 * 1024;
/// The signature, no flags, and no extension of the header.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// In place of a number of columns: there are no more rows.
const END: [u8; 2] = (-1i16).to_be_bytes();
/// In place of a length: the value is NULL.
const NULL: [u8; 4] = (-1i32).to_be_bytes();

/// The type of a column of `events`.
#[derive(Clone, Copy)]
enum Column {
    Bigint,
    Uuid,
    Text,
    Bytea,
}

use Column::{Bigint, Bytea, Text, Uuid};

/// The columns, in the order of the fields of `StoredEvent` in `core/model.py`.
const COLUMNS: [Column; 17] = [
    Bigint, Uuid, Bigint, Bigint, Text, Text, Text, Text, Bigint, Bytea, Text, Text, Bytea, Bytea, Bytea, Bytea, Bytea,
];

/// Return the stream in pieces. None if Python has to write it: a value is not of its column's type.
pub fn copied<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyList>>> {
    guarded(|| pieces(rows))
}

fn pieces<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyList>>> {
    let py = rows.py();
    let pieces = PyList::empty(py);
    let mut out = HEADER.to_vec();
    for row in rows.try_iter()? {
        let row = row?.cast_into::<PyTuple>()?;
        if row.len() != COLUMNS.len() {
            return Ok(None);
        }
        if put(&(COLUMNS.len() as i16).to_be_bytes(), &mut out).is_none() {
            return Ok(None);
        }
        for (place, column) in COLUMNS.into_iter().enumerate() {
            if write(&*row.get_borrowed_item(place)?, column, &mut out).is_none() {
                return Ok(None);
            }
        }
        if out.len() >= PIECE {
            pieces.append(piece(py, &out)?)?;
            out.clear();
        }
    }
    if put(&END, &mut out).is_none() {
        return Ok(None);
    }
    pieces.append(piece(py, &out)?)?;
    Ok(Some(pieces))
}

/// Return bytes as an object. A MemoryError if there is no place for them, where `PyBytes::new` would panic.
fn piece<'py>(py: Python<'py>, out: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, out.len(), |bytes| {
        bytes.copy_from_slice(out);
        Ok(())
    })
}

/// Write a value as its column's type. None if it is of another type, has a lone surrogate, is a number of more than 64
/// bits, or if there is no place for it.
fn write(value: &Bound<'_, PyAny>, column: Column, out: &mut Vec<u8>) -> Option<()> {
    match column {
        Uuid => {
            let id = value.cast::<PyBytes>().ok()?.as_bytes();
            if id.len() != 16 {
                return None;
            }
            sized(id, out)
        }
        _ if value.is_none() => put(&NULL, out),
        Bigint => sized(&value.cast::<PyInt>().ok()?.extract::<i64>().ok()?.to_be_bytes(), out),
        Text => sized(value.cast::<PyString>().ok()?.to_str().ok()?.as_bytes(), out),
        Bytea => sized(value.cast::<PyBytes>().ok()?.as_bytes(), out),
    }
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let size = i32::try_from(bytes.len()).ok()?;
    put(&size.to_be_bytes(), out)?;
    put(bytes, out)
}

/// Append bytes. None if there is no place for them, where `extend` would end the process.
fn put(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.try_reserve(bytes.len()).or_else(|_| out.try_reserve_exact(bytes.len())).ok()?;
    out.extend(bytes);
    Some(())
}
