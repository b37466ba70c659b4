#!/usr/bin/perl
# tcp_rate_limits: connections over the limit are closed, the next window serves again, one connection may ask often.
use strict;
use warnings;
use HyperTest;
use HyperSd;
use Test::More;

my $sd = sd_new(limits => '( { type = "minute"; limit = 8; } )');
my $daemon = $sd->start_sd;
# the windows follow the calendar: ten connections that fit into one, which on a slow machine a second try may need
my @seen;
wait_until {
	wait_until { (gmtime)[0] < 45 } 30;
	my $minute = (gmtime)[1];
	@seen = map { $sd->call('getTip')->{curl} == 0 ? 1 : 0 } 1 .. 10;
	(gmtime)[1] == $minute;
} 150;
is(scalar(grep { $_ } @seen[ 0 .. 7 ]), 8, 'eight connections are served');
is(scalar(grep { $_ } @seen[ 8, 9 ]), 0, 'the ninth and tenth are closed');
ok($daemon->is_running);
is($daemon->stop, 0);

my $keep = sd_new(name => '-keep', limits => '( { type = "hour"; limit = 1; } )');
$keep->start_sd;
my $c = certs();
my $body = write_file(tmp() . '/body.json', '{"jsonrpc":"2.0","method":"getTip","params":{},"id":"1"}');
my @request = ('-sS', '--noproxy', '*', '--cacert', "$c/root.crt", '--cert', "$c/hd-1.crt", '--key', "$c/hd-1.key",
	'--resolve', "sd-1:$keep->{port}:127.0.0.1", '-H', 'Content-Type: application/json', '--data-binary', "\@$body", '-o', '/dev/null',
	'-w', '%{http_code} ', $keep->{url});
my ($status, $out) = run_program([ 'curl', map { (@request, '--next') } 1 .. 3 ]);
like($out, qr/^200 200 200/, 'requests on one connection are not counted') or diag $out;
hyper_done();
