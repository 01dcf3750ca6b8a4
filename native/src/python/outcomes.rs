//! Outcomes of Python to those that an answer is written from.

use std::borrow::Cow;

use pyo3::exceptions::{PyTypeError, PyUnicodeEncodeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::{Core, guarded};
use crate::answer::{Link, Outcome, Problem};

impl Core {
    /// Write an answer. None if Python has to write it.
    pub(super) fn written<'py>(
        &self,
        py: Python<'py>,
        outcomes: &Bound<'py, PyAny>,
        lines: &Bound<'py, PyAny>,
        write: impl FnOnce(&[Outcome<'_>], &mut Vec<u8>) -> Option<()>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let written = guarded(|| {
            let outcomes =
                outcomes.try_iter()?.map(|one| Ok(one?.cast_into::<PyTuple>()?)).collect::<PyResult<Vec<_>>>()?;
            let links = outcomes.iter().map(|one| tuple_or_none(one.get_item(1)?)).collect::<PyResult<Vec<_>>>()?;
            let problems = outcomes.iter().map(|one| tuple_or_none(one.get_item(2)?)).collect::<PyResult<Vec<_>>>()?;
            let hashes = links
                .iter()
                .map(|link| {
                    link.as_ref()
                        .map(|link| {
                            Ok((link.get_item(0)?.cast_into::<PyBytes>()?, link.get_item(3)?.cast_into::<PyBytes>()?))
                        })
                        .transpose()
                })
                .collect::<PyResult<Vec<_>>>()?;
            let mut views = Vec::with_capacity(outcomes.len());
            for (at, outcome) in outcomes.iter().enumerate() {
                let link = match (&links[at], &hashes[at]) {
                    (Some(link), Some((id, event_hash))) => Some(Link {
                        id: id.as_bytes().try_into().map_err(|_| PyTypeError::new_err("an id has 16 bytes"))?,
                        sequence: link.get_item(1)?.extract()?,
                        created_at: link.get_item(2)?.extract()?,
                        event_hash: event_hash.as_bytes(),
                    }),
                    _ => None,
                };
                let problem = problems[at].as_ref().map(problem_of).transpose()?;
                let status = self.status(py, &outcome.get_item(0)?)?;
                views.push(Outcome {
                    is_stored: matches!(&*status, "accepted" | "replaced" | "duplicate"),
                    status,
                    link,
                    problem,
                    warnings: texts_of(&outcome.get_item(3)?)?,
                    line: None,
                });
            }
            if !lines.is_empty()? {
                if lines.len()? != views.len() {
                    return Err(PyTypeError::new_err("there must be as many lines as outcomes"));
                }
                for (view, line) in views.iter_mut().zip(lines.try_iter()?) {
                    view.line = Some(line?.extract()?);
                }
            }
            let mut out = Vec::with_capacity(64 + 256 * views.len());
            Ok(write(&views, &mut out).map(|()| PyBytes::new(py, &out)))
        });
        match written {
            Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(py) => Ok(None), // a lone surrogate
            written => written,
        }
    }

    /// Return the word of a status.
    fn status(&self, py: Python<'_>, status: &Bound<'_, PyAny>) -> PyResult<Cow<'static, str>> {
        if status.is(&self.accepted) {
            return Ok(Cow::Borrowed("accepted"));
        }
        if status.is(&self.duplicate) {
            return Ok(Cow::Borrowed("duplicate"));
        }
        Ok(Cow::Owned(status.getattr(self.value.bind(py))?.extract()?))
    }
}

fn tuple_or_none(value: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyTuple>>> {
    if value.is_none() { Ok(None) } else { Ok(Some(value.cast_into::<PyTuple>()?)) }
}

fn text_of(value: &Bound<'_, PyAny>) -> PyResult<Cow<'static, str>> {
    Ok(Cow::Owned(value.cast::<PyString>()?.to_str()?.to_owned()))
}

fn texts_of(values: &Bound<'_, PyAny>) -> PyResult<Vec<Cow<'static, str>>> {
    values.cast::<PyTuple>()?.iter().map(|value| text_of(&value)).collect()
}

fn problem_of(problem: &Bound<'_, PyTuple>) -> PyResult<Problem<'static>> {
    Ok(Problem {
        reason: text_of(&problem.get_item(0)?)?,
        field: text_of(&problem.get_item(1)?)?,
        message: text_of(&problem.get_item(2)?)?,
        retryable: problem.get_item(3)?.extract()?,
        differing_fields: texts_of(&problem.get_item(4)?)?,
    })
}
