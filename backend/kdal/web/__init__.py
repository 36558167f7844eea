"""What Label Studio and people ask kdal over HTTP."""
