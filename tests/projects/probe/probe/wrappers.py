"""ASGI middleware that tells in which order it was called."""


class Wrapper:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            order = [*scope.get("order", ()), type(self).__name__]
            scope = {**scope, "order": order}
        await self.app(scope, receive, send)


class Outer(Wrapper):
    pass


class Inner(Wrapper):
    pass
