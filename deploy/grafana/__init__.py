"""Grafana's dashboards, made by code: ``python -m beamsieve.deploy.grafana`` writes ``dashboards/*.json``.

Needs ``grafana-foundation-sdk``, which only developers have: nothing of the product imports this package.
"""
