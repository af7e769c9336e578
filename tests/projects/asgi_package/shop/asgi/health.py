def health_check(application):
    async def answer(scope, receive, send):
        if scope["type"] == "http" and scope["path"] == "/health/":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"fine"})
        else:
            await application(scope, receive, send)

    return answer
