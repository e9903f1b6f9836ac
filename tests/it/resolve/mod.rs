//! `POST /api/v1/secrets/resolve`.
