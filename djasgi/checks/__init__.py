"""What bites Django on ASGI, found before production: one module a subject.

Which modules those are is found by listing the package; each fills the registry of
`djasgi.checks.base` when it is imported.
"""
