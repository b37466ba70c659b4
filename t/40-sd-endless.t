#!/usr/bin/perl
# Guards: `hyper sd records` ends with an error when what answers serves page after page for ever.
use strict;
use warnings;
use HyperTest;
use Test::More;

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 0, Listen => 10) or die "listen: $!";
my $port = $listener->sockport;
my $body = json_text({ jsonrpc => '2.0', id => '', result => [ map { { hash => 'ab' x 32 } } 1 .. 5000 ] });
my $pid = fork // die "fork: $!";
if (!$pid) {
	while (my $sock = $listener->accept) {
		my $head = '';
		while ($head !~ /\r\n\r\n/ && sysread $sock, $head, 1, length $head) { }
		read_exactly($sock, $head =~ /^Content-Length: (\d+)\r$/mi ? $1 : 0);
		print $sock "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: " . length($body) . "\r\n\r\n$body";
	}
	POSIX::_exit(0);
}
my $c = certs();
write_file(tmp() . '/hyper/1.cfg', qq(name = "hd-1"; directory = { type = "api"; settings = { endpoints = [ "http://127.0.0.1:$port/jsonrpc" ];
	ca_certificate_files = [ "$c/root.crt" ]; jsonrpc_client = {}; }; };\n));
my ($code, $out, $err) = run_program([ program('hyper'), 'sd', 'records' ], env => { HYPER_SETTINGS => tmp() . '/hyper' }, timeout => 30);
is($code, 1, 'exit status 1');
is($out, '', 'nothing is printed');
like($err, qr/getRecords: more than 100000 records/, 'and why');
kill 'KILL', $pid;
waitpid $pid, 0;
hyper_done();
