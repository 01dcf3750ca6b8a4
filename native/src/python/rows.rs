//! Rows of Python to PostgreSQL's binary COPY (https://www.postgresql.org/docs/current/sql-copy.html).

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUnicodeEncodeError};
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

/// Return the stream in pieces. None if Python has to write it.
pub fn copied<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyList>>> {
    let py = rows.py();
    match guarded(|| pieces(rows).map(Some)) {
        // A lone surrogate, or a number of more than 64 bits.
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(py) => Ok(None),
        Err(error) if error.is_instance_of::<PyOverflowError>(py) => Ok(None),
        copied => copied,
    }
}

fn pieces<'py>(rows: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyList>> {
    let py = rows.py();
    let pieces = PyList::empty(py);
    let mut out = HEADER.to_vec();
    for row in rows.try_iter()? {
        let row = row?.cast_into::<PyTuple>()?;
        let columns = i16::try_from(row.len()).map_err(|_| PyTypeError::new_err("a row has fewer columns"))?;
        out.extend(columns.to_be_bytes());
        for place in 0..row.len() {
            write(&*row.get_borrowed_item(place)?, &mut out)?;
        }
        if out.len() >= PIECE {
            pieces.append(PyBytes::new(py, &out))?;
            out.clear();
        }
    }
    out.extend(END);
    pieces.append(PyBytes::new(py, &out))?;
    Ok(pieces)
}

/// Write a value: bytes as `bytea` or `uuid`, a text as `text`, an integer as `bigint`.
fn write(value: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        sized(bytes.as_bytes(), out)
    } else if let Ok(text) = value.cast::<PyString>() {
        sized(text.to_str()?.as_bytes(), out)
    } else if value.is_none() {
        out.extend(NULL);
        Ok(())
    } else {
        sized(&value.cast::<PyInt>()?.extract::<i64>()?.to_be_bytes(), out)
    }
}

fn sized(bytes: &[u8], out: &mut Vec<u8>) -> PyResult<()> {
    let size = i32::try_from(bytes.len()).map_err(|_| PyTypeError::new_err("a value is too long"))?;
    out.extend(size.to_be_bytes());
    out.extend(bytes);
    Ok(())
}
