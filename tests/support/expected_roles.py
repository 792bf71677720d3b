"""The roles that are to be pasted where only those of jupyterhub-idle-culler are there."""


def expected_roles(service: str) -> str:
    """Give them as they are printed, without a line break at the end."""
    return f"""\
c.JupyterHub.load_roles.extend([
    {{
        'name': 'idle-exporter-scopes',
        'services': [{service!r}],
        'scopes': [
            'list:users',
            'read:servers',
            'delete:servers',
            'proxy',
            'tokens!user=idle-prober',
            'tokens!service=idle-prober',
        ],
    }},
    {{
        'name': 'idle-prober-scopes',
        'users': ['idle-prober'],
        'scopes': [
            'access:servers',
            'delete:servers',
        ],
    }},
])"""
